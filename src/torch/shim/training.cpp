#include "training.h"

#include <torch/csrc/jit/ir/constants.h>

#include <map>
#include <optional>
#include <utility>

#include "operators.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

// The value of the first of these arguments that the node has, if it is a constant.
std::optional<IValue> constant_argument(const Node* node, std::initializer_list<const char*> names) {
  for (const char* name : names) {
    if (node->hasNamedInput(name)) return toIValue(node->namedInput(name));
  }
  return std::nullopt;
}

bool has_argument(const Node* node, std::initializer_list<const char*> names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const char* name) { return node->hasNamedInput(name); });
}

bool is_true(const std::optional<IValue>& value) {
  return value && value->isBool() && value->toBool();
}

bool uses_batch_statistics(const Node* node, const Module& module) {
  const Family family = operator_of(node).family;
  if (family == Family::kBatchNorm) return is_true(constant_argument(node, {"training"}));
  if (family != Family::kInstanceNorm || !is_true(constant_argument(node, {"use_input_stats"}))) {
    return false;
  }
  // An instance norm uses its input's statistics in evaluation as well, unless it has some of its own.
  return parameter(node->namedInput("running_mean"), module).has_value();
}

bool draws_random_numbers(const Node* node) {
  if (!node->kind().is_aten() || !node->maybeSchema() || !node->isNondeterministic()) return false;
  const auto probability = constant_argument(node, {"p", "dropout_p", "dropout"});
  if (probability && probability->isDouble() && probability->toDouble() == 0) return false;
  return !has_argument(node, {"train", "training"}) ||
         is_true(constant_argument(node, {"train", "training"}));
}

void count(const Block* block, const Module& module,
           std::map<std::pair<std::string, bool>, size_t>& counts) {
  for (const Node* node : block->nodes()) {
    for (const Block* inner : node->blocks()) count(inner, module, counts);
    if (uses_batch_statistics(node, module)) {
      ++counts[{base_name(node), false}];
    } else if (draws_random_numbers(node)) {
      ++counts[{base_name(node), true}];
    }
  }
}

}  // namespace

std::vector<TrainingSteps> training_steps(Graph& graph, const Module& module) {
  std::map<std::pair<std::string, bool>, size_t> counts;
  count(graph.block(), module, counts);
  std::vector<TrainingSteps> steps;
  for (const auto& [step, times] : counts) steps.push_back({step.first, times, step.second});
  return steps;
}

}  // namespace medcam
