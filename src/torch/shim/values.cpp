#include "values.h"

#include <torch/csrc/jit/ir/constants.h>

namespace medcam {

using namespace torch::jit;

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

bool all_ones(const Value* value) {
  const auto constant = toIValue(value);
  if (!constant) return false;
  if (constant->isInt()) return constant->toInt() == 1;
  if (!constant->isIntList()) return false;
  for (const int64_t extent : constant->toIntList()) {
    if (extent != 1) return false;
  }
  return true;
}

bool is_zero(const Value* value) {
  const auto constant = toIValue(value);
  return constant && constant->isScalar() && constant->toScalar().toDouble() == 0;
}

}  // namespace medcam
