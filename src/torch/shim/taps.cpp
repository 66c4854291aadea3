#include "taps.h"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "operators.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

// What an operation is called: an operator's name without ATen's underscores, and where that leaves it open, with
// the number of axes.
std::string layer_kind(const Node* node, const Module& module) {
  const Operator& op = operator_of(node);
  std::string name = op.name;
  name.erase(0, name.find_first_not_of('_'));
  if (op.family == Family::kConvolution && name == "convolution") {
    const auto weight = parameter(node->input(1), module);
    const bool transposed = toIValue(node->namedInput("transposed")) == IValue(true);
    name = transposed ? "conv_transpose" : "conv";
    if (weight && weight->dim() >= 3) name += std::to_string(weight->dim() - 2) + "d";
  }
  return name;
}

bool is_layer(const Node* node) {
  const Operator& op = operator_of(node);
  if (!op.has(kIsLayer) || node->outputs().empty() || !is_tensor(node->outputs()[0])) return false;
  // A number may be added, which makes no layer.
  const auto inputs = node->inputs();
  return base_name(node) != "add" || std::count_if(inputs.begin(), inputs.end(), is_tensor) > 1;
}

bool is_convolution(const Node* node) { return operator_of(node).family == Family::kConvolution; }

bool leads_bare_to_convolution(const Node* node) {
  std::vector<const Value*> open = {node->outputs()[0]};
  std::unordered_set<const Value*> seen;
  while (!open.empty()) {
    const Value* value = open.back();
    open.pop_back();
    if (!seen.insert(value).second) continue;
    const auto& uses = value->uses();
    const auto is_tap = [](const Use& use) { return use.user->kind() == kTap && use.offset == 0; };
    if (std::any_of(uses.begin(), uses.end(), is_tap)) continue;
    for (const Use& use : uses) {
      if (is_convolution(use.user)) return true;
      for (const Value* output : use.user->outputs()) {
        if (is_tensor(output)) open.push_back(output);
      }
    }
  }
  return false;
}

bool is_tapped(const Node* node) {
  const auto& uses = node->outputs()[0]->uses();
  return std::any_of(uses.begin(), uses.end(),
                     [](const Use& use) { return use.user->kind() == kTap && use.offset == 0; });
}

void collect_layers(Block* block, std::vector<Node*>& layers) {
  for (Node* node : block->nodes()) {
    if (is_layer(node)) layers.push_back(node);
    for (Block* inner : node->blocks()) collect_layers(inner, layers);
  }
}

}  // namespace

void insert_tap(Node* node, Value* tape, const std::string& name, size_t index) {
  Graph& graph = *node->owningGraph();
  Value* value = node->outputs()[0];
  WithInsertPoint here(node->next());
  Value* text = graph.insertConstant(name);
  Value* no = graph.insertConstant(false);
  Node* tap = graph.insertNode(
      graph.create(kTap, {value, tape, text, /*shared=*/no, /*copy=*/no}, /*outputs=*/1));
  tap->output()->setType(TensorType::get());
  // The number by which the facts of this tap are found again.
  tap->i_(attr::idx, static_cast<int64_t>(index));
  value->replaceAllUsesAfterNodeWith(tap, tap->output());
}

void tap_operations(Graph& graph, const Module& module, Value* tape, std::vector<TapFacts>& taps) {
  std::vector<Node*> layers;
  collect_layers(graph.block(), layers);
  std::unordered_set<std::string> taken;
  for (const TapFacts& tap : taps) taken.insert(tap.name);
  std::unordered_map<std::string, size_t> counts;
  for (Node* node : layers) {
    const std::string kind = layer_kind(node, module);
    std::string name;
    do {
      name = kind + "." + std::to_string(++counts[kind]);
    } while (taken.count(name) != 0);
    if (is_tapped(node)) continue;
    insert_tap(node, tape, name, taps.size());
    TapFacts facts;
    facts.name = name;
    facts.type = kind;
    taps.push_back(std::move(facts));
  }
}

bool has_bare_convolutions(Graph& graph) {
  std::vector<Node*> layers;
  collect_layers(graph.block(), layers);
  return std::any_of(layers.begin(), layers.end(), [](const Node* node) {
    return is_convolution(node) && leads_bare_to_convolution(node);
  });
}

}  // namespace medcam
