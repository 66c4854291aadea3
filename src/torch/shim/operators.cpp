#include "operators.h"

#include <torch/csrc/jit/ir/constants.h>

#include <unordered_set>

namespace medcam {

using namespace torch::jit;

std::string base_name(const Node* node) {
  if (!node->kind().is_aten()) return "";
  std::string name = node->kind().toUnqualString();
  if (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

bool is_convolution(const Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "_convolution",     "convolution",      "conv1d",          "conv2d", "conv3d",
      "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"};
  return kinds.count(base_name(node)) != 0;
}

bool is_passthrough(const Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "to",      "contiguous",      "clone",   "detach",
      "alias",   "dropout",         "type_as", "_autocast_to_reduced_precision",
      "feature_dropout", "_autocast_to_full_precision"};
  return node->kind() == kTap || node->kind() == kScore || kinds.count(base_name(node)) != 0;
}

bool reshapes_scores(const Node* node) {
  static const std::unordered_set<std::string> kinds = {"squeeze", "unsqueeze", "view", "reshape", "flatten"};
  const std::string name = base_name(node);
  // y[0]
  if (name == "select") return toIValue(node->input(1)) == IValue(0) && toIValue(node->input(2)) == IValue(0);
  return kinds.count(name) != 0;
}

bool keeps_rank(const Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "add",        "sub",       "rsub",       "mul",           "div",          "true_divide",
      "pow",        "sqrt",      "rsqrt",      "square",        "exp",          "log",
      "log1p",      "abs",       "neg",        "reciprocal",    "clamp",        "clamp_min",
      "clamp_max",  "clip",      "minimum",    "maximum",       "where",        "masked_fill",
      "nan_to_num", "relu",      "relu6",      "leaky_relu",    "elu",          "selu",
      "celu",       "gelu",      "silu",       "mish",          "hardswish",    "hardtanh",
      "sigmoid",    "tanh",      "softplus",   "softmax",       "cat",          "pad",
      "roll",       "flip",      "slice",      "transpose",     "batch_norm",   "instance_norm",
      "group_norm", "layer_norm", "constant_pad_nd", "__interpolate"};
  return is_passthrough(node) || node->kind() == prim::ListConstruct ||
         kinds.count(base_name(node)) != 0;
}

int64_t rank_of_input(const Node* node, const Module& module) {
  const std::string name = base_name(node);
  if (is_convolution(node)) {
    const auto weight = parameter(node->input(1), module);
    if (weight && weight->dim() >= 3) return weight->dim();
  }
  if (name == "permute") {
    const auto axes = toIValue(node->input(1));
    return axes && axes->isIntList() ? static_cast<int64_t>(axes->toIntVector().size()) : 0;
  }
  if (name == "repeat" || name == "expand") {
    // They may add axes, but no input has fewer than four.
    const auto sizes = toIValue(node->input(1));
    const bool is_four = sizes && sizes->isIntList() && sizes->toIntVector().size() == 4;
    return is_four ? 4 : 0;
  }
  // max_pool2d_with_indices, upsample_trilinear3d, conv3d, reflection_pad2d...
  for (const auto& [axes, rank] : {std::pair("1d", 3), std::pair("2d", 4), std::pair("3d", 5)}) {
    if (name.find(axes) != std::string::npos) return rank;
  }
  return 0;
}

bool is_tensor(const Value* value) { return value->type()->isSubtypeOf(*TensorType::get()); }

std::optional<c10::IValue> held(const Value* value, const Module& module) {
  const Node* node = value->node();
  if (node->kind() == prim::Param) {
    const bool is_module = value == node->owningBlock()->owningGraph()->inputs()[0];
    return is_module ? std::make_optional(c10::IValue(module._ivalue())) : std::nullopt;
  }
  if (node->kind() != prim::GetAttr) return std::nullopt;
  const auto owner = held(node->input(0), module);
  if (!owner || !owner->isObject()) return std::nullopt;
  return owner->toObject()->getAttr(node->s(attr::name));
}

std::optional<at::Tensor> parameter(const Value* value, const Module& module) {
  auto found = toIValue(value);
  if (!found) found = held(value, module);
  return found && found->isTensor() ? std::make_optional(found->toTensor()) : std::nullopt;
}

}  // namespace medcam
