// The tape: what a run of a model records, and the operators that put it into a TorchScript graph.
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cstdlib>
#include <cstring>
#include <optional>

#include "internal.h"

namespace medcam {

namespace {

// Passes a tensor on under another history: what writes to the result leaves that of x alone, though
// they share their memory. Nobody may read x afterwards. Hands the gradient to a receiver.
struct Handover : torch::autograd::Function<Handover> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& x,
                            const c10::intrusive_ptr<Receiver>& receiver) {
    context->saved_data["receiver"] = c10::IValue::make_capsule(receiver);
    // No view of x, which autograd would not let anyone write to here.
    return x.variable_data();
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 torch::autograd::variable_list gradients) {
    const auto receiver =
        c10::static_intrusive_pointer_cast<Receiver>(context->saved_data["receiver"].toCapsule());
    if (receiver->take) receiver->take(gradients[0]);
    return {gradients[0], at::Tensor()};
  }
};

}  // namespace

at::Tensor Tape::tap(const at::Tensor& x, const std::string& name, bool copy,
                     const std::function<at::Tensor()>& again) {
  const int64_t run = ++runs[name];
  seen.push_back({name, x.sizes().vec()});
  for (Wish& wish : wishes) {
    if (wish.run != run || wish.name != name) continue;
    TORCH_CHECK(x.is_floating_point(), "layer '", name, "' has an output of type ", x.scalar_type(),
                "; a map needs floating point");
    if (x.requires_grad() && again) {
      wish.again = again;
      wish.receiver = c10::make_intrusive<Receiver>();
      return Handover::apply(x, wish.receiver);
    }
    if (x.requires_grad()) {
      wish.activation = x;
    } else {
      // The tape starts here: all before has run without autograd.
      at::GradMode::set_enabled(true);
      wish.activation = x.detach().requires_grad_(true);
    }
    return copy ? wish.activation.clone() : wish.activation;
  }
  return x;
}

at::Tensor Tape::note_score(const at::Tensor& x, bool copy) {
  score = x;
  return copy ? x.clone() : x;
}

char* copy_string(const std::string& text) {
  char* copy = static_cast<char*>(std::malloc(text.size() + 1));
  if (copy) std::memcpy(copy, text.c_str(), text.size() + 1);
  return copy;
}

std::string current_message() {
  try {
    throw;
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  } catch (const std::exception& error) {
    return error.what();
  } catch (...) {
    return "an exception of an unknown type";
  }
}

static at::Tensor tap_operator(const at::Tensor& x, const c10::intrusive_ptr<Tape>& tape,
                               std::string name, bool copy) {
  return tape->tap(x, name, copy);
}

static at::Tensor tap_norm_operator(const at::Tensor& x, const c10::intrusive_ptr<Tape>& tape,
                                    std::string name, const at::Tensor& input,
                                    const std::optional<at::Tensor>& weight,
                                    const std::optional<at::Tensor>& bias,
                                    const std::optional<at::Tensor>& mean,
                                    const std::optional<at::Tensor>& variance,
                                    bool by_instance, double epsilon) {
  const auto again = [=] {
    const at::NoGradGuard no_grad;
    const bool cudnn = at::globalContext().userEnabledCuDNN();
    // Momentum is of running statistics, which nothing updates.
    return by_instance ? at::instance_norm(input, weight, bias, mean, variance,
                                           /*use_input_stats=*/true, 0., epsilon, cudnn)
                       : at::batch_norm(input, weight, bias, mean, variance,
                                        /*training=*/false, 0., epsilon, cudnn);
  };
  return tape->tap(x, name, /*copy=*/true, again);
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
      "tap(Tensor(a) x, __torch__.torch.classes.medcam.Tape tape, str name, bool copy)"
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

void mc_string_free(char* text) { std::free(text); }

mc_tape* mc_tape_new(void) { return new mc_tape{c10::make_intrusive<medcam::Tape>()}; }

void mc_tape_free(mc_tape* tape) { delete tape; }

bool mc_tape_want(mc_tape* tape, const char* name, int64_t run, char** error) {
  return medcam::guarded(error, [&] { tape->tape->wishes.push_back({name, run, {}, {}, {}}); });
}

bool mc_tape_tap(mc_tape* tape, const char* name, const mc_tensor* x, mc_tensor** y, char** error) {
  // Nobody has read the code that the model goes on with, so a wish is always answered by a copy.
  return medcam::guarded(
      error, [&] { *y = medcam::wrap(tape->tape->tap(medcam::unwrap(x), name, /*copy=*/true)); });
}

bool mc_tape_score(mc_tape* tape, const mc_tensor* x, mc_tensor** y, char** error) {
  return medcam::guarded(
      error, [&] { *y = medcam::wrap(tape->tape->note_score(medcam::unwrap(x), /*copy=*/true)); });
}

bool mc_tape_recorded(const mc_tape* tape, size_t index) {
  const auto& wishes = tape->tape->wishes;
  return index < wishes.size() && wishes[index].recorded();
}

size_t mc_tape_same(const mc_tape* tape, size_t index) {
  const auto& wishes = tape->tape->wishes;
  size_t first = 0;
  // One that is computed again has no tensor to be the same.
  if (!wishes[index].activation.defined()) return index;
  while (!wishes[first].activation.is_same(wishes[index].activation)) ++first;
  return first;
}

mc_tensor* mc_tape_noted_score(const mc_tape* tape) {
  return tape->tape->score.defined() ? medcam::wrap(tape->tape->score) : nullptr;
}

size_t mc_tape_seen_count(const mc_tape* tape) { return tape->tape->seen.size(); }

mc_seen mc_tape_seen(const mc_tape* tape, size_t index) {
  const medcam::Seen& seen = tape->tape->seen[index];
  return {seen.name.c_str(), seen.sizes.data(), seen.sizes.size()};
}

}  // extern "C"
