#include "channels.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "operators.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

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

// Whether a value is weights and no activation. Old tracing takes a linear layer apart: its transposed weights.
bool is_weights(const Value* value) {
  return value->node()->kind() == prim::GetAttr || toIValue(value) || base_name(value->node()) == "t";
}

// Whether einsum multiplies matrices: an axis of its result is of the first operand alone, and one of the
// second alone, as in "bqc,bkc->bqk".
bool is_matrix_product(const Node* einsum) {
  const auto equation = toIValue(einsum->input(0));
  const Node* operands = einsum->input(1)->node();
  if (!equation || !equation->isString() || operands->kind() != prim::ListConstruct) return false;
  for (const Value* operand : operands->inputs()) {
    // With a parameter it is a linear layer of some kind.
    if (is_weights(operand)) return false;
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
  const Operator& op = operator_of(node);
  if (op.has(kChannelsFirst)) return Channels::kFirst;
  switch (op.family) {
    case Family::kLinear:
      return Channels::kLast;
    case Family::kProduct:
      return is_weights(node->input(1)) ? Channels::kLast : Channels::kNone;
    case Family::kLayerNorm:
      return is_one_axis(node->input(1)) ? Channels::kLast : Channels::kUnknown;
    case Family::kEinsum:
      return is_matrix_product(node) ? Channels::kNone : Channels::kUnknown;
    default:
      return Channels::kUnknown;
  }
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
  if (operator_of(node).axes == Axes::kKept) {
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
    if (told != Channels::kUnknown || operator_of(use.user).axes != Axes::kKept) continue;
    told = of(use.user->output());
  }
  return ahead_[value] = told;
}

}  // namespace medcam
