#include "origins.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>
#include <iterator>
#include <unordered_set>

#include "operators.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

bool is_constant_int(const Value* value, int64_t number) { return toIValue(value) == IValue(number); }

// Whether a slice takes all samples or channels: no part of the image is cut off.
bool is_off_the_image(const Node* slice) {
  return is_constant_int(slice->input(1), 0) || is_constant_int(slice->input(1), 1);
}

// The activation that a step on each voxel alone changes; nullptr for any other step, or where two come together.
const Value* behind_pointwise(const Node* node) {
  const Operator& op = operator_of(node);
  const bool is_norm = op.family == Family::kBatchNorm || op.family == Family::kInstanceNorm;
  const bool is_alike = op.voxels == Voxels::kSame || op.voxels == Voxels::kGated || is_norm ||
                        (op.family == Family::kSlice && is_off_the_image(node));
  if (!is_alike || node->inputs().empty() || !is_tensor(node->input(0))) return nullptr;
  if (is_norm || op.has(kPassesThrough) || op.family == Family::kSlice) return node->input(0);
  const auto inputs = node->inputs();
  const auto is_activation = [](const Value* value) {
    return is_tensor(value) && value->node()->kind() != prim::GetAttr && !toIValue(value);
  };
  return std::count_if(inputs.begin(), inputs.end(), is_activation) == 1 ? node->input(0) : nullptr;
}

// What a value was before pointwise steps.
const Value* before_pointwise(const Value* value) {
  while (const Value* earlier = behind_pointwise(value->node())) value = earlier;
  return value;
}

// Whether a step leaves a single voxel: a pool to an extent of 1, or a mean over the axes of the image.
bool leaves_one_voxel(const Node* node) {
  const std::string name = base_name(node);
  const bool is_adaptive = name.find("adaptive_") != std::string::npos;
  if (is_adaptive) return node->inputs().size() > 1 && all_ones(node->input(1));
  if (name != "mean" && name != "amax" && name != "sum") return false;
  const auto axes = node->inputs().size() > 1 ? toIValue(node->input(1)) : std::nullopt;
  if (!axes || !axes->isIntList()) return false;
  // Of (B, C, H, W) or (B, C, D, H, W).
  std::unordered_set<int64_t> last;
  for (const int64_t axis : axes->toIntVector()) last.insert(axis);
  const auto has = [&](int64_t axis) { return last.count(axis) != 0; };
  return (has(2) || has(-2)) && (has(3) || has(-1)) && (last.size() == 2 || has(4) || has(-3));
}

// Whether a value may be an activation, or hold some: no number, size or weight.
bool may_hold_image(const Value* value) {
  if (value->node()->kind() == prim::GetAttr || toIValue(value)) return false;
  auto type = value->type();
  while (const auto list = type->cast<ListType>()) type = list->getElementType();
  return type->kind() != TypeKind::IntType && type->kind() != TypeKind::BoolType &&
         type->kind() != TypeKind::FloatType;
}

std::string tap_name(const Node* tap) { return toIValue(tap->input(2))->toStringRef(); }

void collect_names(const Block* block, std::unordered_set<std::string>& names) {
  for (const Node* node : block->nodes()) {
    if (node->kind() == kTap) names.insert(tap_name(node));
    for (const Block* inner : node->blocks()) collect_names(inner, names);
  }
}

}  // namespace

Origins::Origins(const Graph& graph, const Module& module)
    : input_(graph.inputs().at(1)), module_(module) {
  // How often branches and loops run is not told.
  std::unordered_set<std::string> untold;
  for (const Node* node : graph.nodes()) {
    for (const Block* inner : node->blocks()) collect_names(inner, untold);
  }
  std::unordered_map<std::string, size_t> counts;
  for (const Node* node : graph.nodes()) {
    if (node->kind() != kTap || untold.count(tap_name(node)) != 0) continue;
    const std::string name = tap_name(node);
    runs_[node] = name + "#" + std::to_string(++counts[name]);
  }
}

std::string Origins::run(const Node* tap) const {
  const auto known = runs_.find(tap);
  return known == runs_.end() ? "" : known->second;
}

bool Origins::regrids(const Value* value) const {
  return operator_of(before_pointwise(value)->node()).has(kRegrids);
}

bool Origins::embeds_patches(const Value* value) const {
  const Node* node = before_pointwise(value)->node();
  if (operator_of(node).family != Family::kConvolution) return false;
  const auto weight = parameter(node->input(1), module_);
  const auto stride = toIValue(node->namedInput("stride"));
  if (!weight || weight->dim() < 4 || !stride || !stride->isIntList()) return false;
  const auto steps = stride->toIntVector();
  const auto kernel = weight->sizes().slice(2);
  const auto step = [&](size_t axis) { return steps[steps.size() == 1 ? 0 : axis]; };
  if (steps.size() != 1 && steps.size() != kernel.size()) return false;
  for (size_t axis = 0; axis < kernel.size(); ++axis) {
    if (kernel[axis] != step(axis)) return false;
  }
  const bool is_wide = std::any_of(kernel.begin(), kernel.end(), [](int64_t n) { return n > 1; });
  return is_wide && before_pointwise(node->input(0)) == input_;
}

std::optional<std::vector<std::string>> Origins::sources(const Value* value) const {
  std::vector<std::string> names;
  std::vector<const Value*> open = {value};
  std::unordered_set<const Value*> seen;
  while (!open.empty()) {
    const Value* current = open.back();
    open.pop_back();
    const Node* node = current->node();
    if (!seen.insert(current).second) continue;
    if (node->kind() == kTap) {
      const std::string name = run(node);
      if (name.empty()) return std::nullopt;
      names.push_back(name);
      continue;
    }
    if (leaves_one_voxel(node)) continue;
    std::vector<const Value*> images;
    std::copy_if(node->inputs().begin(), node->inputs().end(), std::back_inserter(images), may_hold_image);
    // The input, what a loop or branch hands on, or a tensor made anew, into which anything may be written.
    if (images.empty() || !node->blocks().empty()) return std::nullopt;
    open.insert(open.end(), images.begin(), images.end());
  }
  return names;
}

}  // namespace medcam
