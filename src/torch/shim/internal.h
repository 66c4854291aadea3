// Shared by the .cpp files of the shim; never seen by bindgen.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/custom_class.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "guided.h"
#include "shim.h"

namespace medcam {

// One run of a layer, and its output's shape and kind.
struct Seen {
  std::string name;
  std::vector<int64_t> sizes;
  bool is_floating_point;
};

// Takes the gradients of what was recorded, by the number of the wish, while a backward wants them.
struct Receiver {
  std::function<void(size_t, const at::Tensor&)> take;
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
  // The value: that tensor, or a copy of it, or how to compute it once more. Empty in a record of what
  // a wish before it recorded, and once it is let go.
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
};

char* copy_string(const std::string& text);
// The message of the exception being handled.
std::string current_message();

// Runs f; an exception of any kind becomes false and a message.
template <typename F>
bool guarded(char** error, F&& f) {
  try {
    f();
    return true;
  } catch (...) {
    *error = copy_string(current_message());
    return false;
  }
}

inline const at::Tensor& unwrap(const mc_tensor* tensor) {
  return *reinterpret_cast<const at::Tensor*>(tensor);
}

inline mc_tensor* wrap(at::Tensor tensor) {
  return reinterpret_cast<mc_tensor*>(new at::Tensor(std::move(tensor)));
}

}  // namespace medcam

struct mc_tape {
  c10::intrusive_ptr<medcam::Tape> tape;
};
