// The tape: what a run of a model records, and the operators that put it into a TorchScript graph.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/variable.h>
#include <torch/library.h>

#include <optional>

#include "tape.h"

#include "boundary.h"
#include "forgetting.h"

namespace medcam {

namespace {

// Where the tape starts: what was computed before is not in autograd's graph.
struct Start : torch::autograd::Node {
  torch::autograd::variable_list apply(torch::autograd::variable_list&&) override { return {}; }
};

// Hands a gradient on as it arrives at a node. A hook of the tensor would follow it to another node when
// something writes to it; this node keeps getting the gradient of the values from before the write.
struct Hook : torch::autograd::FunctionPreHook {
  Hook(std::shared_ptr<Receiver> receiver, size_t wish, const torch::autograd::Edge& edge)
      : receiver_(std::move(receiver)),
        wish_(wish),
        node_(edge.function.get()),
        number_(edge.input_nr) {}

  torch::autograd::variable_list operator()(
      const torch::autograd::variable_list& gradients) override {
    if (gradients[number_].defined()) receiver_->receive(wish_, node_, gradients[number_]);
    return gradients;
  }

 private:
  std::shared_ptr<Receiver> receiver_;
  size_t wish_;
  // Which has this hook.
  const torch::autograd::Node* node_;
  uint32_t number_;
};

// Passes gradients on.
struct Passage : torch::autograd::Node {
  torch::autograd::variable_list apply(torch::autograd::variable_list&& gradients) override {
    return std::move(gradients);
  }
};

// A tensor that is no view, in the same memory, behind a node of its own: autograd loses sight of a view that
// is written to.
at::Tensor behind(const std::shared_ptr<torch::autograd::Node>& node, const at::Tensor& view) {
  at::Tensor y = view.detach();
  torch::autograd::create_gradient_edge(y, node);
  return y;
}

// A tensor that is no view, in the same memory and with the same history. What writes to it is its next step,
// where for a view autograd would copy the gradient of all that it is a view of, three times.
at::Tensor own(const at::Tensor& view) {
  at::Tensor y = view.detach();
  torch::autograd::impl::set_gradient_edge(y, torch::autograd::impl::gradient_edge(view));
  return y;
}

}  // namespace

void Receiver::set(Take take) {
  const std::lock_guard<std::mutex> lock(mutex_);
  take_ = std::move(take);
}

void Receiver::receive(size_t wish, const torch::autograd::Node* node, const at::Tensor& gradient) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (take_) take_(wish, node, gradient);
}

Tape::~Tape() {
  // A layer may return what outlives the run, such as a parameter.
  for (const auto& tensor : started) {
    if (auto strong = tensor.lock()) at::Tensor(std::move(strong)).detach_();
  }
}

at::Tensor Tape::start(const at::Tensor& x) {
  // All before has run without autograd.
  at::GradMode::set_enabled(true);
  const auto node = std::make_shared<Start>();
  if (x.is_view()) return behind(node, x);
  at::Tensor y = x;
  torch::autograd::create_gradient_edge(y, node);
  started.emplace_back(y.getIntrusivePtr());
  return y;
}

at::Tensor Tape::tap(const at::Tensor& x, const std::string& name, bool shared, bool copy,
                     const std::function<at::Tensor()>& again) {
  forget_inputs(x);
  const int64_t run = ++runs[name];
  seen.push_back({name, x.sizes().vec(), x.is_floating_point()});
  at::Tensor y = x;
  bool is_recorded = false;
  for (size_t index = 0; index < wishes.size(); ++index) {
    Wish& wish = wishes[index];
    if ((wish.run != 0 && wish.run != run) || wish.name != name) continue;
    TORCH_CHECK(x.is_floating_point(), "layer '", name, "' has an output of type ", x.scalar_type(),
                "; a map needs floating point");
    // Autograd does not propagate a write through one view to the gradients of the other views.
    TORCH_CHECK(!shared || !x.is_view(), "layer '", name,
                "': its output is a view of what the model writes over and reads again. Take the layer "
                "before it or the one behind");
    if (!y.requires_grad()) y = start(y);
    const torch::autograd::Edge edge = torch::autograd::impl::gradient_edge(y);
    // Where the last run is wished for, an earlier one may have returned the same.
    const bool is_hooked = wish.record && wish.record->node.lock() == edge.function &&
                           wish.record->number == edge.input_nr;
    wish.record = {WeakTensor(y.getIntrusivePtr()), y._version(), edge.function, edge.input_nr, {},
                   copy, nullptr};
    const size_t first = same(index);
    if (first != index) {
      wish.record->activation = wishes[first].record->activation;
      wish.record->again = wishes[first].record->again;
    } else if (again) {
      wish.record->again = again;
    } else {
      const at::NoGradGuard no_grad;
      wish.record->activation = copy ? y.detach().clone() : y;
    }
    if (!is_hooked) {
      edge.function->add_tensor_pre_hook(std::make_unique<Hook>(receiver, index, edge));
    }
    is_recorded = true;
  }
  if (!copy || !y.is_view()) return y;
  if (!is_recorded) return again && y.requires_grad() ? own(y) : y;
  const auto passage = std::make_shared<Passage>();
  passage->add_next_edge(torch::autograd::impl::gradient_edge(y));
  return behind(passage, y);
}

size_t Tape::same(size_t index) const {
  for (size_t i = 0; i < index; ++i) {
    if (wishes[i].record && wishes[i].record->is_same(*wishes[index].record)) return i;
  }
  return index;
}

at::Tensor Tape::note_score(const at::Tensor& x, bool copy) {
  score = copy ? x.clone() : x;
  return x;
}

static at::Tensor tap_operator(const at::Tensor& x, const c10::intrusive_ptr<Tape>& tape,
                               std::string name, bool shared, bool copy) {
  return tape->tap(x, name, shared, copy);
}

static at::Tensor tap_norm_operator(const at::Tensor& x, const c10::intrusive_ptr<Tape>& tape,
                                    std::string name, const at::Tensor& input,
                                    const std::optional<at::Tensor>& weight,
                                    const std::optional<at::Tensor>& bias,
                                    const std::optional<at::Tensor>& mean,
                                    const std::optional<at::Tensor>& variance,
                                    bool by_instance, double epsilon) {
  const int64_t version = input._version();
  const auto again = [=] {
    const at::NoGradGuard no_grad;
    TORCH_CHECK(input._version() == version, "layer '", name, "': the model writes over its input");
    const bool cudnn = at::globalContext().userEnabledCuDNN();
    // Momentum is of running statistics, which nothing updates.
    return by_instance ? at::instance_norm(input, weight, bias, mean, variance,
                                           /*use_input_stats=*/true, 0., epsilon, cudnn)
                       : at::batch_norm(input, weight, bias, mean, variance,
                                        /*training=*/false, 0., epsilon, cudnn);
  };
  return tape->tap(x, name, /*shared=*/false, /*copy=*/true, again);
}

static at::Tensor score_operator(const at::Tensor& x, const c10::intrusive_ptr<Tape>& tape,
                                 bool copy) {
  return tape->note_score(x, copy);
}

}  // namespace medcam

// (a): both return their input, and alias analysis must know it.
TORCH_LIBRARY(medcam, library) {
  library.class_<medcam::Tape>("Tape");
  library.def(
      "tap(Tensor(a) x, __torch__.torch.classes.medcam.Tape tape, str name, bool shared,"
      " bool copy)"
      " -> Tensor(a)",
      medcam::tap_operator);
  library.def(
      "tap_norm(Tensor(a) x, __torch__.torch.classes.medcam.Tape tape, str name, Tensor input,"
      " Tensor? weight, Tensor? bias, Tensor? mean, Tensor? variance, bool by_instance,"
      " float epsilon) -> Tensor(a)",
      medcam::tap_norm_operator);
  library.def(
      "score(Tensor(a) x, __torch__.torch.classes.medcam.Tape tape, bool copy) -> Tensor(a)",
      medcam::score_operator);
}

extern "C" {

mc_tape* mc_tape_new(void) {
  try {
    return new mc_tape{c10::make_intrusive<medcam::Tape>()};
  } catch (...) {
    return nullptr;
  }
}

void mc_tape_free(mc_tape* tape) { delete tape; }

bool mc_tape_want(mc_tape* tape, const char* name, int64_t run, char** error) {
  return medcam::guarded(error, [&] { tape->tape->wishes.push_back({name, run, {}}); });
}

bool mc_tape_tap(mc_tape* tape, const char* name, const mc_tensor* x, mc_tensor** y, char** error) {
  // Nobody has read the code that the model goes on with: it may write to what it gets.
  return medcam::guarded(
      error, [&] {
        *y = medcam::wrap(
            tape->tape->tap(medcam::unwrap(x), name, /*shared=*/false, /*copy=*/true));
      });
}

bool mc_tape_score(mc_tape* tape, const mc_tensor* x, mc_tensor** y, char** error) {
  return medcam::guarded(
      error, [&] { *y = medcam::wrap(tape->tape->note_score(medcam::unwrap(x), /*copy=*/true)); });
}

bool mc_tape_recorded(const mc_tape* tape, size_t index) {
  const auto& wishes = tape->tape->wishes;
  return index < wishes.size() && wishes[index].record;
}

size_t mc_tape_same(const mc_tape* tape, size_t index) { return tape->tape->same(index); }

mc_tensor* mc_tape_noted_score(const mc_tape* tape) {
  return tape->tape->score.defined() ? medcam::wrap(tape->tape->score) : nullptr;
}

size_t mc_tape_seen_count(const mc_tape* tape) { return tape->tape->seen.size(); }

mc_seen mc_tape_seen(const mc_tape* tape, size_t index) {
  const medcam::Seen& seen = tape->tape->seen[index];
  return {seen.name.c_str(), seen.sizes.data(), seen.sizes.size(), seen.is_floating_point};
}

}  // extern "C"
