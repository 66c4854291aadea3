// What one run of a model records, and how its activations are guided.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/custom_class.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "shim.h"

namespace medcam {

// One run of a layer, and its output's shape and kind.
struct Seen {
  std::string name;
  std::vector<int64_t> sizes;
  bool is_floating_point;
};

// Takes the gradients of what was recorded while a backward wants them. Autograd has a thread for each device,
// and those of a backward that failed may still run when it has returned: hence the lock.
class Receiver {
 public:
  // By the number of the wish, and the node at which the gradient arrived.
  using Take = std::function<void(size_t, const torch::autograd::Node*, const at::Tensor&)>;

  // Has gradients handed to `take`, one at a time, from now on; to nobody if it is empty. When it returns, the
  // one before is not running and never will.
  void set(Take take);
  void receive(size_t wish, const torch::autograd::Node* node, const at::Tensor& gradient);

 private:
  std::mutex mutex_;
  Take take_;
};

// A rule of the caller's for guided ReLUs, in place of the one of guided.cpp.
class GateRule {
 public:
  GateRule(mc_gate call, void* context, mc_gate_drop drop) : call_(call), context_(context, drop) {}

  // The part of a gradient that passes; `output` is that of the activation, and positive where its input is.
  at::Tensor operator()(const at::Tensor& gradient, const at::Tensor& output) const;

 private:
  mc_gate call_;
  std::shared_ptr<void> context_;
};

// How the activations of one run are guided.
struct Guidance {
  mc_guide guide = MC_GUIDE_NONE;
  // Whether backwards to come take the guided rule. Shared with the gates, which must not hold the tape itself:
  // it holds activations, and their history holds the gates.
  std::shared_ptr<std::atomic<bool>> on = std::make_shared<std::atomic<bool>>(false);
  std::optional<GateRule> rule;
  // Activations that ran with a gate.
  size_t activations = 0;
};

using WeakTensor = c10::weak_intrusive_ptr<c10::TensorImpl, c10::UndefinedTensorImpl>;

// What was recorded of the activation that a wish asked for.
struct Record {
  // The tensor that went through the tap, whoever holds it, and how often it had been written to.
  WeakTensor tensor;
  int64_t version;
  // Where its gradient arrives in autograd's graph, which the score holds.
  std::weak_ptr<torch::autograd::Node> node;
  uint32_t number;
  // The value: that tensor, or a copy of it, or how to compute it once more. Empty once it is let go.
  at::Tensor activation;
  bool is_copy;
  std::function<at::Tensor()> again;

  bool is_same(const Record& other) const {
    return tensor._unsafe_get_target() == other.tensor._unsafe_get_target() &&
           version == other.version;
  }
};

// A wish for the activation of one run of a layer.
struct Wish {
  std::string name;
  // From 1; 0 for the last.
  int64_t run;
  std::optional<Record> record;
};

// What one run of a model records. Travels through the graph as an input of its own, so that
// models can run in several threads at once.
struct Tape : torch::CustomClassHolder {
  ~Tape() override;

  // Passes the output of a layer through; the first wish that comes true starts autograd. What comes back
  // is the tensor that went in, or a tensor in its memory, so that whoever shares that goes on sharing it:
  // the model computes what it computes without a tape.
  // shared: others in its memory are read later, after it was written to.
  // copy: it may be written to in place, so what is recorded must not share its memory.
  // again: computes it once more, from what autograd keeps anyway, so that no copy is needed.
  at::Tensor tap(const at::Tensor& x, const std::string& name, bool shared, bool copy,
                 const std::function<at::Tensor()>& again = nullptr);
  at::Tensor note_score(const at::Tensor& x, bool copy);

  // The same tensor, in autograd's graph from here on.
  at::Tensor start(const at::Tensor& x);
  // The first wish that recorded the same tensor.
  size_t same(size_t index) const;

  std::unordered_map<std::string, int64_t> runs;
  std::vector<Seen> seen;
  std::vector<Wish> wishes;
  std::vector<WeakTensor> started;
  std::shared_ptr<Receiver> receiver = std::make_shared<Receiver>();
  at::Tensor score;
  Guidance guidance;
  // Convolutions that backward narrowed.
  size_t narrowed = 0;
};

}  // namespace medcam

struct mc_tape {
  c10::intrusive_ptr<medcam::Tape> tape;
};
