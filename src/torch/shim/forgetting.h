// Saved inputs that no gradient needs: autograd keeps them for the gradients of weights, which nobody asks for.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/function_hook.h>
#include <torch/csrc/autograd/generated/Functions.h>
#include <torch/csrc/autograd/saved_variable.h>

#include <cstdint>
#include <optional>
#include <vector>

namespace medcam {

// The shape and the memory format of a tensor.
struct Form {
  explicit Form(const at::Tensor& tensor)
      : sizes(tensor.sizes().vec()),
        options(tensor.options()),
        format(tensor.suggest_memory_format()) {}

  // A tensor of this form whose values are not to be read.
  at::Tensor empty() const;

  bool is_of(const at::Tensor& tensor) const {
    return tensor.sizes() == sizes && tensor.dtype() == options.dtype() &&
           tensor.device() == options.device() && tensor.suggest_memory_format() == format;
  }

  std::vector<int64_t> sizes;
  at::TensorOptions options;
  at::MemoryFormat format;
};

// What the nodes of convolutions have in common; traced ones have a node of another type.
struct Convolution {
  template <typename Backward>
  explicit Convolution(Backward& backward)
      : node(backward),
        input(backward.input_),
        weight(backward.weight_),
        groups(backward.groups),
        transposed(backward.transposed) {}

  torch::autograd::Node& node;
  torch::autograd::SavedVariable& input;
  torch::autograd::SavedVariable& weight;
  c10::SymInt& groups;
  bool transposed;
};

// Whether only the first input of a step needs a gradient, not its weights.
bool is_frozen(const torch::autograd::Node& node);

// A convolution by frozen weights.
std::optional<Convolution> as_convolution(torch::autograd::Node* node);

// A batch norm in evaluation, whose weights are frozen: the gradient doesn't depend on the values of its input.
torch::autograd::generated::NativeBatchNormBackward0* as_constant_norm(torch::autograd::Node* node);

// Have an input of this form stand for the saved one.
void put_form(Convolution& convolution, Form form);
void put_form(torch::autograd::generated::NativeBatchNormBackward0& norm, Form form);

// Whether a hook is one that `put_form` leaves at a node.
bool is_of_form(const torch::autograd::FunctionPreHook& hook);

// Lets go of what a step saved of its input, if only the form of that is needed.
void forget_input(torch::autograd::Node* node);

// Does so in the last steps before a tensor: while the model runs, which needs less memory from there on.
void forget_inputs(const at::Tensor& y);

}  // namespace medcam
