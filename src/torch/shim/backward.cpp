// Autograd from a score back to what a tape recorded, each activation reduced as its gradient arrives.
#include <torch/csrc/autograd/autograd.h>

#include <optional>
#include <vector>

#include "internal.h"

namespace medcam {

namespace {

// Hooks on the activations of a tape, gone with this object: they refer to what lives on the stack of
// one backward.
class Hooks {
 public:
  Hooks(Tape& tape, bool keep, mc_gradient gradient, void* context)
      : tape_(tape), keep_(keep), gradient_(gradient), context_(context) {
    for (size_t index = 0; index < tape.wishes.size(); ++index) {
      handles_.push_back(is_first(index) ? std::make_optional(add(index)) : std::nullopt);
      Wish& wish = tape.wishes[index];
      if (!wish.again) continue;
      wish.receiver->take = [this, index](const at::Tensor& gradient) { again(index, gradient); };
    }
  }

  ~Hooks() {
    for (size_t index = 0; index < handles_.size(); ++index) {
      const Wish& wish = tape_.wishes[index];
      if (wish.receiver) wish.receiver->take = nullptr;
      if (handles_[index] && wish.activation.defined()) wish.activation.remove_hook(*handles_[index]);
    }
  }

  Hooks(const Hooks&) = delete;
  Hooks& operator=(const Hooks&) = delete;

 private:
  bool is_first(size_t index) const {
    const auto& wishes = tape_.wishes;
    if (!wishes[index].activation.defined()) return false;
    for (size_t i = 0; i < index; ++i) {
      if (wishes[i].activation.is_same(wishes[index].activation)) return false;
    }
    return true;
  }

  unsigned add(size_t index) {
    return tape_.wishes[index].activation.register_hook([this, index](const at::Tensor& gradient) {
      // A copy: what the tape holds is let go below, and the engine holds it no longer than it must.
      const at::Tensor activation = tape_.wishes[index].activation;
      if (!activation.defined() || !gradient.defined()) return;
      gradient_(context_, index, reinterpret_cast<const mc_tensor*>(&activation),
                reinterpret_cast<const mc_tensor*>(&gradient));
      if (keep_) return;
      for (Wish& wish : tape_.wishes) {
        if (wish.activation.is_same(activation)) wish.activation.reset();
      }
    });
  }

  void again(size_t index, const at::Tensor& gradient) {
    Wish& wish = tape_.wishes[index];
    if (!gradient.defined()) return;
    {
      const at::Tensor activation = wish.again();
      gradient_(context_, index, reinterpret_cast<const mc_tensor*>(&activation),
                reinterpret_cast<const mc_tensor*>(&gradient));
    }
    if (!keep_) wish.again = nullptr;
  }

  Tape& tape_;
  bool keep_;
  mc_gradient gradient_;
  void* context_;
  std::vector<std::optional<unsigned>> handles_;
};

// Where backward ends. Only what is named here is kept until the end.
std::vector<at::Tensor> ends(const Tape& tape, const mc_tensor* start) {
  std::vector<at::Tensor> found;
  bool several = false;
  const auto add = [&](const at::Tensor& tensor) {
    for (const at::Tensor& other : found) {
      if (other.is_same(tensor)) return;
    }
    found.push_back(tensor);
  };
  for (const Wish& wish : tape.wishes) {
    // The tape starts at the leaves: every other activation lies on the way there.
    if (wish.activation.defined() && (start || wish.activation.is_leaf())) add(wish.activation);
    several = several || wish.again;
  }
  // From one layer there is no need to go on to the input. Of several, which lies deepest is not
  // known, and to name them all would keep all their gradients.
  if (start && (several || found.size() > 1)) found = {unwrap(start)};
  return found;
}

}  // namespace

}  // namespace medcam

extern "C" bool mc_tape_backward(mc_tape* tape, const mc_tensor* score, const mc_tensor* start,
                                 bool keep, mc_gradient gradient, void* context, char** error) {
  return medcam::guarded(error, [&] {
    const std::vector<at::Tensor> ends = medcam::ends(*tape->tape, start);
    TORCH_CHECK(!ends.empty(), "no layer was recorded");
    const medcam::Hooks hooks(*tape->tape, keep, gradient, context);
    torch::autograd::grad({medcam::unwrap(score)}, ends, /*grad_outputs=*/{}, keep,
                          /*create_graph=*/false, /*allow_unused=*/true);
  });
}
