#include "shapes.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/runtime/graph_executor.h>

#include <algorithm>

#include "meta.h"
#include "operators.h"

namespace medcam {

using namespace torch::jit;

namespace {

const c10::Device kMetaDevice(c10::kMeta);

// The same value without its tensors' values. Tensors without axes stay: graphs compute with them as numbers.
c10::IValue without_values(const c10::IValue& value) {
  if (value.isDevice()) return kMetaDevice;
  if (value.isTensor() && value.toTensor().defined() && value.toTensor().dim() > 0) {
    return value.toTensor().to(kMetaDevice);
  }
  if (value.isTensorList()) {
    c10::List<at::Tensor> tensors;
    for (const at::Tensor& tensor : value.toTensorVector()) {
      tensors.push_back(tensor.to(kMetaDevice));
    }
    return tensors;
  }
  return value;
}

// Makes a tensor of numbers, which the graph may read as numbers again.
bool makes_number(const Node* node) {
  const std::string name = base_name(node);
  return name == "tensor" || name == "scalar_tensor" || name == "as_tensor";
}

bool has_tensor_input(const Node* node) {
  const auto inputs = node->inputs();
  return std::any_of(inputs.begin(), inputs.end(), [](const Value* value) {
    return value->type()->isSubtypeOf(*TensorType::get());
  });
}

// Has what the graph makes itself made on the meta device: constants, and tensors from sizes (zeros, arange).
void move_to_meta(Graph& graph, Block* block) {
  for (Node* node : block->nodes()) {
    for (Block* inner : node->blocks()) move_to_meta(graph, inner);
    if (makes_number(node)) continue;
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      const auto constant = toIValue(node->input(i));
      if (!constant) continue;
      const bool is_unset_device = constant->isNone() && !has_tensor_input(node) &&
                                   node->maybeSchema() && node->hasNamedInput("device") &&
                                   node->input(i) == node->namedInput("device");
      const c10::IValue moved = is_unset_device ? c10::IValue(kMetaDevice) : without_values(*constant);
      if (moved.is(*constant)) continue;
      WithInsertPoint here(node);
      node->replaceInput(i, graph.insertConstant(moved));
    }
  }
}

}  // namespace

c10::IValue run_shapes(const Module& module, const TappedGraph& tapped,
                       std::vector<c10::IValue> defaults, const at::Tensor& like,
                       const c10::intrusive_ptr<Tape>& tape) {
  declare_shape_rules();
  const at::NoGradGuard no_grad;
  const GraphOptimizerEnabledGuard off(false);
  const auto graph = tapped.graph->copy();
  move_to_meta(*graph, graph->block());
  Stack stack = {module.deepcopy(kMetaDevice)._ivalue(),
                 at::empty(like.sizes(), like.options().device(kMetaDevice))};
  for (c10::IValue& value : defaults) stack.push_back(without_values(value));
  stack.emplace_back(tape);
  GraphExecutor(graph, "medcam_shapes", SIMPLE).run(stack);
  return stack.back();
}

}  // namespace medcam
