#include "input.h"

#include <torch/csrc/jit/ir/constants.h>

#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "operators.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

// The type of the first floating point parameter.
std::optional<c10::ScalarType> parameter_type(const Module& module) {
  for (const at::Tensor& parameter : module.parameters()) {
    if (parameter.is_floating_point()) return parameter.scalar_type();
  }
  return std::nullopt;
}

// Channels that the first convolution takes, if the input enters it as it is.
int64_t channels_of(const Block* block, const Value* input, const Module& module) {
  for (const Node* node : block->nodes()) {
    if (operator_of(node).family == Family::kConvolution) {
      const Value* source = node->input(0);
      while (operator_of(source->node()).has(kPassesThrough)) source = source->node()->input(0);
      const auto weight = parameter(node->input(1), module);
      if (source == input && weight && weight->dim() >= 3) {
        const bool transposed = base_name(node).rfind("conv_transpose", 0) == 0 ||
                                (node->hasNamedInput("transposed") &&
                                 toIValue(node->namedInput("transposed")) == IValue(true));
        const auto groups = toIValue(node->namedInput("groups"));
        if (!groups || !groups->isInt()) return 0;
        return transposed ? weight->size(0) : weight->size(1) * groups->toInt();
      }
    }
    for (const Block* inner : node->blocks()) {
      if (const int64_t channels = channels_of(inner, input, module)) return channels;
    }
  }
  return 0;
}

// The rank that a step demands of its first input, with batch and channel axes (max_pool3d: 5); 0 if any.
int64_t rank_of_input(const Node* node, const Module& module) {
  const std::string name = base_name(node);
  if (operator_of(node).family == Family::kConvolution) {
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
  // ATen's names say it: max_pool2d_with_indices, upsample_trilinear3d, reflection_pad2d...
  for (const auto& [axes, rank] : {std::pair("1d", 3), std::pair("2d", 4), std::pair("3d", 5)}) {
    if (name.find(axes) != std::string::npos) return rank;
  }
  return 0;
}

// Follows the input over steps that keep its rank to the first one that demands a rank.
class RankSearch {
 public:
  RankSearch(const Value* input, const Module& module) : module_(module), same_rank_({input}) {}

  int64_t in(const Block* block) {
    for (const Node* node : block->nodes()) {
      if (!node->inputs().empty() && is_same_rank(node->input(0))) {
        if (const int64_t rank = rank_of_input(node, module_)) return rank;
      }
      for (const Block* inner : node->blocks()) {
        if (const int64_t rank = in(inner)) return rank;
      }
      const auto inputs = node->inputs();
      const bool has_rank = std::any_of(inputs.begin(), inputs.end(),
                                        [&](const Value* value) { return is_same_rank(value); });
      const Axes axes = operator_of(node).axes;
      if (has_rank && (axes == Axes::kKept || axes == Axes::kReordered)) {
        same_rank_.insert(node->outputs().begin(), node->outputs().end());
      }
      for (const Block* inner : node->blocks()) {
        // Of an If; what a Loop carries is not followed.
        for (size_t i = 0; node->kind() == prim::If && i < inner->outputs().size(); ++i) {
          if (is_same_rank(inner->outputs()[i])) same_rank_.insert(node->outputs()[i]);
        }
      }
    }
    return 0;
  }

 private:
  bool is_same_rank(const Value* value) const { return same_rank_.count(value) != 0; }

  const Module& module_;
  std::unordered_set<const Value*> same_rank_;
};

// Follows the types of tensors through a graph whose input has a given type, up to the first weights.
class TypeFlow {
 public:
  TypeFlow(const Graph& graph, const Module& module, c10::ScalarType type) : module_(module) {
    const Value* input = graph.inputs().at(1);
    types_[input] = type;
    from_input_.insert(input);
    follow(graph.block());
  }

  // Whether the input meets each first weight with that weight's type.
  bool fits() const { return fits_; }
  // The type of the first weight that the input meets.
  std::optional<c10::ScalarType> first_weight() const { return first_weight_; }

 private:
  std::optional<c10::ScalarType> type_of(const Value* value) const {
    const auto known = types_.find(value);
    if (known != types_.end()) return known->second;
    const auto tensor = parameter(value, module_);
    return tensor ? std::make_optional(tensor->scalar_type()) : std::nullopt;
  }

  bool is_from_input(const Value* value) const { return from_input_.count(value) != 0; }

  // A constant type, such as the argument `dtype` of `to`.
  static std::optional<c10::ScalarType> type_argument(const Node* node, const char* name) {
    if (!node->hasNamedInput(name)) return std::nullopt;
    const auto constant = toIValue(node->namedInput(name));
    if (!constant || !constant->isInt()) return std::nullopt;
    return static_cast<c10::ScalarType>(constant->toInt());
  }

  // Operators that refuse tensors of different types.
  static bool is_strict(const Node* node) {
    switch (operator_of(node).family) {
      case Family::kConvolution:
      case Family::kLinear:
      case Family::kProduct:
      case Family::kFlatProduct:
      case Family::kEinsum:
        return true;
      default:
        return false;
    }
  }

  void follow(const Block* block) {
    for (const Node* node : block->nodes()) {
      for (const Block* inner : node->blocks()) {
        follow(inner);
        for (size_t i = 0; i < inner->outputs().size() && i < node->outputs().size(); ++i) {
          pass_on({inner->outputs()[i]}, node->outputs()[i], type_of(inner->outputs()[i]));
        }
      }
      const std::vector<const Value*> inputs(node->inputs().begin(), node->inputs().end());
      if (is_strict(node) && meet(inputs)) continue;
      for (const Value* output : node->outputs()) pass_on(inputs, output, result(node));
    }
  }

  // Compares what comes from the input with the weights of a strict operator; false if it has none.
  bool meet(const std::vector<const Value*>& inputs) {
    std::optional<c10::ScalarType> arriving, weight;
    for (const Value* value : inputs) {
      const auto type = type_of(value);
      if (!type) continue;
      (is_from_input(value) ? arriving : weight) = type;
    }
    if (!arriving || !weight) return false;
    if (!first_weight_) first_weight_ = weight;
    fits_ = fits_ && arriving == weight;
    return true;
  }

  void pass_on(const std::vector<const Value*>& inputs, const Value* output,
               std::optional<c10::ScalarType> type) {
    if (!type) return;
    types_[output] = *type;
    for (const Value* value : inputs) {
      if (is_from_input(value)) from_input_.insert(output);
    }
  }

  // The type of what a step gives: that of a cast, else of its inputs by PyTorch's type promotion.
  std::optional<c10::ScalarType> result(const Node* node) const {
    const std::string name = base_name(node);
    if (node->inputs().empty()) return std::nullopt;
    const auto own = type_of(node->input(0));
    if (name == "to" || name == "type_as") {
      if (const auto type = type_argument(node, "dtype")) return type;
      return node->hasNamedInput("other") ? type_of(node->namedInput("other")) : own;
    }
    if (name == "_autocast_to_reduced_precision") {
      const bool casts = toIValue(node->namedInput("cpu_enabled")) == IValue(true);
      return casts && own == c10::kFloat ? type_argument(node, "cpu_dtype") : own;
    }
    if (name == "_autocast_to_full_precision") return c10::kFloat;
    // What an in-place step writes to keeps its type.
    const auto* schema = node->maybeSchema();
    if (schema && schema->is_mutable()) return own;
    std::optional<c10::ScalarType> promoted;
    for (const Value* value : node->inputs()) {
      const auto type = type_of(value);
      const auto tensor = parameter(value, module_);
      // A tensor without axes counts as a number, which does not widen a floating point type.
      const bool is_number = tensor && tensor->dim() == 0;
      if (!type || is_number || !c10::isFloatingType(*type)) continue;
      promoted = promoted ? c10::promoteTypes(*promoted, *type) : *type;
    }
    return promoted;
  }

  const Module& module_;
  std::unordered_map<const Value*, c10::ScalarType> types_;
  std::unordered_set<const Value*> from_input_;
  bool fits_ = true;
  std::optional<c10::ScalarType> first_weight_;
};

// That of the first parameter, unless the input meets weights of another type first.
std::optional<c10::ScalarType> type_for(const Graph& graph, const Module& module) {
  const auto preferred = parameter_type(module);
  std::optional<c10::ScalarType> first_weight;
  for (const c10::ScalarType type :
       {preferred.value_or(c10::kFloat), c10::kFloat, c10::kHalf, c10::kBFloat16, c10::kDouble}) {
    const TypeFlow flow(graph, module, type);
    if (!flow.first_weight()) return preferred;
    if (flow.fits()) return type;
    if (!first_weight) first_weight = flow.first_weight();
  }
  return first_weight;
}

}  // namespace

InputFacts input_facts(const Graph& graph, const Module& module) {
  const Value* input = graph.inputs().at(1);
  return {channels_of(graph.block(), input, module), RankSearch(input, module).in(graph.block()),
          type_for(graph, module)};
}

}  // namespace medcam
