// Autograd from a score back to what a tape recorded, each activation reduced as its gradient arrives.
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <unordered_set>
#include <vector>

#include "boundary.h"
#include "narrowing.h"
#include "tape.h"

namespace medcam {

namespace {

using torch::autograd::Edge;
using torch::autograd::Node;

// Has the gradients of what a tape recorded handed out, for as long as this object lives.
class Handout {
 public:
  Handout(Tape& tape, bool keep, mc_gradient gradient, void* context) : tape_(tape) {
    tape.receiver->set([=, &tape](size_t index, const Node* node, const at::Tensor& arrived) {
      Record& record = *tape.wishes[index].record;
      // Of an earlier run, or of a tensor that an earlier wish recorded too.
      if (record.node.lock().get() != node || tape.same(index) != index) return;
      // A copy: what the tape holds is let go below, and the engine holds it no longer than it must.
      const at::Tensor activation = record.again ? record.again() : record.activation;
      if (!activation.defined()) return;
      TORCH_CHECK(record.again || record.is_copy || activation._version() == record.version,
                  "layer '", tape.wishes[index].name,
                  "': the model writes over its output later, where its graph does not show it. Take "
                  "another layer, or export the model without in-place operations");
      const at::NoGradGuard no_grad;
      gradient(context, index, reinterpret_cast<const mc_tensor*>(&activation),
               reinterpret_cast<const mc_tensor*>(&arrived));
      if (keep) return;
      for (size_t other = index; other < tape.wishes.size(); ++other) {
        auto& alike = tape.wishes[other].record;
        if (!alike || tape.same(other) != index) continue;
        alike->activation.reset();
        alike->again = nullptr;
      }
    });
  }

  ~Handout() { tape_.receiver->set(nullptr); }

  Handout(const Handout&) = delete;
  Handout& operator=(const Handout&) = delete;

 private:
  Tape& tape_;
};

// Whether backward from a node comes to one of the ends; `elsewhere` is what is known not to.
bool leads_to(const std::vector<Edge>& ends, Node* from, std::unordered_set<Node*>& elsewhere) {
  std::vector<Node*> left = {from};
  std::unordered_set<Node*> visited = {from};
  while (!left.empty()) {
    Node* node = left.back();
    left.pop_back();
    for (const Edge& end : ends) {
      if (end.function.get() == node) return true;
    }
    for (const Edge& next : node->next_edges()) {
      Node* other = next.function.get();
      if (other && !elsewhere.count(other) && visited.insert(other).second) left.push_back(other);
    }
  }
  elsewhere.insert(visited.begin(), visited.end());
  // It may become an end itself.
  elsewhere.erase(from);
  return false;
}

// Where backward ends. Only the gradients of what is named here are kept until the end, so a layer on
// the way to another is not.
std::vector<Edge> ends(const Tape& tape, const mc_tensor* start) {
  std::vector<Edge> ends;
  std::unordered_set<Node*> elsewhere;
  std::vector<Edge> recorded;
  for (size_t index = 0; index < tape.wishes.size(); ++index) {
    const auto& record = tape.wishes[index].record;
    std::shared_ptr<Node> node = record && tape.same(index) == index ? record->node.lock() : nullptr;
    if (node) recorded.emplace_back(std::move(node), record->number);
  }
  // From one layer there is no need to go on to the input.
  if (start && recorded.size() > 1) return {torch::autograd::impl::gradient_edge(unwrap(start))};
  // What ran earlier never leads to what ran later.
  std::stable_sort(recorded.begin(), recorded.end(), [](const Edge& a, const Edge& b) {
    return a.function->sequence_nr() < b.function->sequence_nr();
  });
  for (Edge& edge : recorded) {
    if (!leads_to(ends, edge.function.get(), elsewhere)) ends.push_back(std::move(edge));
  }
  return ends;
}

}  // namespace

}  // namespace medcam

extern "C" size_t mc_tape_narrowed(const mc_tape* tape) { return tape->tape->narrowed; }

extern "C" bool mc_tape_backward(mc_tape* tape, const mc_tensor* score, const mc_tensor* start,
                                 bool keep, mc_gradient gradient, void* context, char** error) {
  return medcam::guarded(error, [&] {
    const std::vector<torch::autograd::Edge> ends = medcam::ends(*tape->tape, start);
    TORCH_CHECK(!ends.empty(), "no layer was recorded");
    const medcam::Handout handout(*tape->tape, keep, gradient, context);
    const at::Tensor& from = medcam::unwrap(score);
    const torch::autograd::Edge root = torch::autograd::impl::gradient_edge(from);
    tape->tape->narrowed += medcam::narrow_convolutions(root, ends);
    torch::autograd::Engine::get_default_engine().execute(
        {root}, {at::ones_like(from)}, keep,
        /*create_graph=*/false, /*accumulate_grad=*/false, ends);
  });
}
