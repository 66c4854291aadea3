// Puts something that takes no memory in the place of a saved input.
#include "forgetting.h"

#include <sys/mman.h>
#include <torch/csrc/autograd/saved_variable_hooks.h>

#include <algorithm>
#include <memory>
#include <utility>

namespace medcam {

namespace generated = torch::autograd::generated;
using torch::autograd::Edge;
using torch::autograd::Node;
using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

namespace {

// Stands for a saved tensor of which only the form is read: an uninitialised one, made when it is asked for.
class FormOnly : public torch::autograd::SavedVariableHooks {
 public:
  explicit FormOnly(Form form) : form_(std::move(form)) {}
  void call_pack_hook(const at::Tensor&) override {}
  at::Tensor call_unpack_hook() override { return form_.empty(); }

 private:
  Form form_;
};

// Stands likewise for the input of a batch norm in evaluation. As libtorch's loops read the values, though the
// gradient doesn't depend on them, it is the arriving gradient, which costs no memory.
class GradientForInput : public torch::autograd::SavedVariableHooks {
 public:
  GradientForInput(Form form, std::shared_ptr<at::Tensor> gradient)
      : form_(std::move(form)), gradient_(std::move(gradient)) {}
  void call_pack_hook(const at::Tensor&) override {}
  at::Tensor call_unpack_hook() override {
    at::Tensor gradient = std::exchange(*gradient_, at::Tensor());
    return gradient.defined() && form_.is_of(gradient) ? gradient : form_.empty();
  }

 private:
  Form form_;
  std::shared_ptr<at::Tensor> gradient_;
};

// Shows `GradientForInput` the gradient, in front of the batch norm's backward.
class ShowGradient : public torch::autograd::FunctionPreHook {
 public:
  explicit ShowGradient(const std::shared_ptr<at::Tensor>& gradient) : gradient_(gradient) {}
  variable_list operator()(const variable_list& gradients) override {
    if (const auto gradient = gradient_.lock()) *gradient = gradients[0];
    return gradients;
  }

 private:
  // Gone once the saved input is.
  std::weak_ptr<at::Tensor> gradient_;
};

void stand_in(SavedVariable& saved, std::unique_ptr<torch::autograd::SavedVariableHooks> hooks) {
  SavedVariable other(at::empty({0}), /*is_output=*/false);
  other.register_hooks(std::move(hooks));
  saved = std::move(other);
}

// The input that a step saved, unless that is forgotten or was let go.
std::optional<Form> saved_form(const SavedVariable& input) {
  const auto tensor = input.get_raw_data();
  if (!tensor || !tensor->defined() || tensor->layout() != at::kStrided) return std::nullopt;
  return Form(*tensor);
}

}  // namespace

at::Tensor Form::empty() const {
  if (!options.device().is_cpu()) return at::empty(sizes, options, format);
  // Addresses without memory behind them: a block of the heap would be taken from what is written to.
  const at::Tensor shape = at::empty(sizes, options.device(at::kMeta), format);
  const size_t bytes = std::max<size_t>(shape.nbytes(), 1);
  void* addresses = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, /*fd=*/-1, /*offset=*/0);
  if (addresses == MAP_FAILED) return at::empty(sizes, options, format);
  return at::from_blob(
      addresses, sizes, shape.strides(), [bytes](void* mapped) { munmap(mapped, bytes); }, options);
}

bool is_frozen(const Node& node) {
  const auto& edges = node.next_edges();
  return !edges.empty() && edges[0].is_valid() &&
         std::none_of(edges.begin() + 1, edges.end(), [](const Edge& e) { return e.is_valid(); });
}

std::optional<Convolution> as_convolution(Node* node) {
  if (!node || !is_frozen(*node)) return std::nullopt;
  if (auto* backward = dynamic_cast<generated::ConvolutionBackward0*>(node)) {
    return Convolution(*backward);
  }
  if (auto* backward = dynamic_cast<generated::ConvolutionBackward1*>(node)) {
    return Convolution(*backward);
  }
  return std::nullopt;
}

generated::NativeBatchNormBackward0* as_constant_norm(Node* node) {
  auto* norm = dynamic_cast<generated::NativeBatchNormBackward0*>(node);
  return norm && !norm->training && is_frozen(*norm) ? norm : nullptr;
}

void put_form(Convolution& convolution, Form form) {
  stand_in(convolution.input, std::make_unique<FormOnly>(std::move(form)));
}

void put_form(generated::NativeBatchNormBackward0& norm, Form form) {
  auto gradient = std::make_shared<at::Tensor>();
  norm.add_pre_hook(std::make_unique<ShowGradient>(gradient));
  stand_in(norm.input_, std::make_unique<GradientForInput>(std::move(form), std::move(gradient)));
}

bool is_of_form(const torch::autograd::FunctionPreHook& hook) {
  return dynamic_cast<const ShowGradient*>(&hook);
}

void forget_input(Node* node) {
  if (auto convolution = as_convolution(node)) {
    if (auto form = saved_form(convolution->input)) put_form(*convolution, std::move(*form));
  } else if (auto* norm = as_constant_norm(node)) {
    if (auto form = saved_form(norm->input_)) put_form(*norm, std::move(*form));
  }
}

void forget_inputs(const at::Tensor& y) {
  if (!y.requires_grad() || y.is_view()) return;
  Node* node = y.grad_fn().get();
  // An activation or norm may lie between; what no tap sees is forgotten before backward.
  for (int step = 0; step < 4 && node && is_frozen(*node); ++step) {
    forget_input(node);
    if (as_convolution(node)) break;
    node = node->next_edge(0).function.get();
  }
}

}  // namespace medcam
