#include "channels.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <cctype>
#include <string>
#include <unordered_set>

#include "operators.h"

namespace medcam {

using namespace torch::jit;

namespace {

// Steps whose output has the axes of their inputs.
bool keeps_axes(const Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "relu",    "relu6",   "leaky_relu", "prelu",      "elu",        "selu",    "celu",
      "gelu",    "silu",    "mish",       "hardswish",  "hardtanh",   "sigmoid", "tanh",
      "softplus", "clamp",  "add",        "sub",        "mul",        "div",     "cat",
      "softmax", "dropout", "to",         "contiguous", "clone",      "detach",  "type_as",
      "roll",    "slice",   "pad",        "constant_pad_nd", "feature_dropout",
      "_autocast_to_reduced_precision", "_autocast_to_full_precision"};
  return node->kind() == kTap || node->kind() == kScore || node->kind() == prim::ListConstruct ||
         kinds.count(base_name(node)) != 0;
}

bool is_one_axis(const Value* normalized_shape) {
  if (const auto constant = toIValue(normalized_shape)) {
    return constant->isIntList() && constant->toIntVector().size() == 1;
  }
  const Node* node = normalized_shape->node();
  return node->kind() == prim::ListConstruct && node->inputs().size() == 1;
}

bool is_tensor_or_list(const Value* value) {
  return is_tensor(value) || value->type()->kind() == TypeKind::ListType;
}

// Whether einsum multiplies matrices: an axis of its result is of the first operand alone, and one of the
// second alone, as in "bqc,bkc->bqk".
bool is_matrix_product(const Node* einsum) {
  const auto equation = toIValue(einsum->input(0));
  const Node* operands = einsum->input(1)->node();
  if (!equation || !equation->isString() || operands->kind() != prim::ListConstruct) return false;
  for (const Value* operand : operands->inputs()) {
    // With a parameter it is a linear layer of some kind.
    if (operand->node()->kind() == prim::GetAttr || toIValue(operand)) return false;
  }
  const std::string& text = equation->toStringRef();
  const size_t comma = text.find(',');
  const size_t arrow = text.find("->");
  if (comma == std::string::npos || arrow == std::string::npos || comma > arrow) return false;
  const std::string first = text.substr(0, comma);
  const std::string second = text.substr(comma + 1, arrow - comma - 1);
  const auto has_axis_of_one_alone = [&](const std::string& one, const std::string& other) {
    const auto begin = text.begin() + static_cast<std::ptrdiff_t>(arrow) + 2;
    return std::any_of(begin, text.end(), [&](char axis) {
      return isalpha(static_cast<unsigned char>(axis)) && one.find(axis) != std::string::npos &&
             other.find(axis) == std::string::npos;
    });
  };
  return has_axis_of_one_alone(first, second) && has_axis_of_one_alone(second, first);
}

// Where a step needs the channels of its first input, which is where it leaves them.
Channels of_step(const Node* node) {
  static const std::unordered_set<std::string> first = {
      "batch_norm", "instance_norm", "group_norm", "pixel_shuffle", "__interpolate"};
  const std::string name = base_name(node);
  if (is_convolution(node) || first.count(name) || name.find("_pool") != std::string::npos ||
      name.rfind("upsample_", 0) == 0) {
    return Channels::kFirst;
  }
  if (name == "linear") return Channels::kLast;
  if (name == "matmul" || name == "bmm" || name == "baddbmm") {
    // Tracing once took a linear layer apart: a product with its transposed weight.
    return base_name(node->input(1)->node()) == "t" ? Channels::kLast : Channels::kNone;
  }
  if (name == "layer_norm" && is_one_axis(node->input(1))) return Channels::kLast;
  if (name == "einsum" && is_matrix_product(node)) return Channels::kNone;
  return Channels::kUnknown;
}

}  // namespace

Channels ChannelAxes::of(const Value* value) {
  const Channels told = behind(value);
  return told == Channels::kUnknown ? ahead(value) : told;
}

Channels ChannelAxes::behind(const Value* value) {
  const auto [known, is_new] = behind_.try_emplace(value, Channels::kUnknown);
  if (!is_new) return known->second;
  const Node* node = value->node();
  Channels told = of_step(node);
  if (node->kind() == prim::If) {
    for (const Block* block : node->blocks()) {
      if (told == Channels::kUnknown) told = behind(block->outputs()[value->offset()]);
    }
  }
  if (keeps_axes(node)) {
    for (const Value* input : node->inputs()) {
      if (told != Channels::kUnknown) break;
      if (is_tensor_or_list(input)) told = behind(input);
    }
  }
  return behind_[value] = told;
}

Channels ChannelAxes::ahead(const Value* value) {
  const auto [known, is_new] = ahead_.try_emplace(value, Channels::kUnknown);
  if (!is_new) return known->second;
  Channels told = Channels::kUnknown;
  for (const Use& use : value->uses()) {
    if (told != Channels::kUnknown) break;
    if (use.offset == 0) told = of_step(use.user);
    // A product takes its inputs from anywhere.
    if (told == Channels::kNone) told = Channels::kUnknown;
    if (told != Channels::kUnknown || !keeps_axes(use.user)) continue;
    told = of(use.user->output());
  }
  return ahead_[value] = told;
}

}  // namespace medcam
