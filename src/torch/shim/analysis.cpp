#include "analysis.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

#include "channels.h"
#include "operators.h"

namespace medcam {

using namespace torch::jit;

namespace {

// Whether all elements of a constant list of integers (or a single one) are 1; no list, no.
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

}  // namespace

GraphAnalysis::GraphAnalysis(Graph& graph, const Module& module) : graph_(graph), module_(module) {
  find_logits();
  redraws_[logits_] = true;
  cancels_[logits_] = false;
  find_ancestors();
}

void GraphAnalysis::find_logits() {
  static const std::unordered_set<std::string> final_activations = {"softmax", "_softmax",
                                                                    "log_softmax", "sigmoid"};
  Value* output = graph_.outputs().at(0);
  logits_ = output;
  while (!logits_->node()->inputs().empty()) {
    tail_.insert(logits_);
    Node* node = logits_->node();
    const std::string name = base_name(node);
    if (final_activations.count(name)) {
      final_activation_ = name == "_softmax" ? "softmax" : name;
      logits_ = node->input(0);
      return;
    }
    if (!is_passthrough(node) && !reshapes_scores(node)) break;
    logits_ = node->input(0);
  }
  logits_ = output;
  tail_.clear();
}

// Whether no gradient comes from the outputs of a step to its inputs.
bool GraphAnalysis::stops_gradient(const Node* node) {
  static const std::unordered_set<std::string> kinds = {
      "detach", "argmax", "argmin", "argsort", "eq", "ne", "lt", "le", "gt", "ge", "sign",
      "round",  "floor",  "ceil",   "isnan", "isfinite", "logical_not", "logical_and", "logical_or"};
  return kinds.count(base_name(node)) != 0;
}

void GraphAnalysis::find_ancestors() {
  std::vector<const Value*> open = {logits_};
  const auto add_block = [&](const Block* block) {
    for (const Value* value : block->outputs()) open.push_back(value);
  };
  // What is only written into something (x[...] = y) has no value of its own to follow; whether
  // its gradient arrives is seen when the model runs.
  for (const Node* node : graph_.nodes()) {
    if (node->kind() == Symbol::aten("copy_") || node->kind() == Symbol::aten("index_put_")) {
      open.insert(open.end(), node->inputs().begin(), node->inputs().end());
      open.insert(open.end(), node->outputs().begin(), node->outputs().end());
    }
  }
  // Likewise what is put into a list or dict.
  const auto add_writers = [&](const Value* container) {
    for (const Use& use : container->uses()) {
      const auto* schema = use.user->maybeSchema();
      if (use.offset != 0 || !schema || !schema->is_mutable()) continue;
      open.insert(open.end(), use.user->inputs().begin(), use.user->inputs().end());
      open.insert(open.end(), use.user->outputs().begin(), use.user->outputs().end());
    }
  };
  while (!open.empty()) {
    const Value* value = open.back();
    open.pop_back();
    // Numbers carry no gradient; lists, tuples and optionals may hold tensors.
    const auto kind = value->type()->kind();
    if (kind == TypeKind::IntType || kind == TypeKind::BoolType || kind == TypeKind::FloatType) {
      continue;
    }
    if (!ancestors_.insert(value).second) continue;
    const Node* node = value->node();
    if (kind == TypeKind::ListType || kind == TypeKind::DictType) {
      add_writers(value);
      // One that is an attribute has a value of its own each time it is named.
      if (node->kind() == prim::GetAttr) {
        for (const Node* other : findAllNodes(graph_, prim::GetAttr, /*recurse=*/true)) {
          if (other->s(attr::name) == node->s(attr::name)) add_writers(other->output());
        }
      }
    }
    if (stops_gradient(node)) continue;
    if (node->kind() == prim::Param && node->owningBlock()->owningNode()) {
      node = node->owningBlock()->owningNode();
    }
    for (const Value* input : node->inputs()) open.push_back(input);
    for (const Block* block : node->blocks()) add_block(block);
  }
}

bool GraphAnalysis::has_pointwise_kernel(const Node* convolution) const {
  const auto weight = parameter(convolution->input(1), module_);
  return weight && weight->dim() >= 3 &&
         std::all_of(weight->sizes().begin() + 2, weight->sizes().end(),
                     [](int64_t extent) { return extent == 1; });
}

// Steps in which a voxel of the output depends on the same voxel of the input alone, and resizing,
// whose gradient is as even. The product of two tensors is none: one gates the other's gradient.
bool GraphAnalysis::is_pointwise(const Node* node) const {
  static const std::unordered_set<std::string> kinds = {
      "relu",     "relu6",    "leaky_relu",  "prelu",    "rrelu",      "elu",       "selu",
      "celu",     "gelu",     "silu",        "mish",     "hardswish",  "hardtanh",  "hardsigmoid",
      "sigmoid",  "tanh",     "softplus",    "softmax",  "_softmax",   "log_softmax", "clamp",
      "clamp_min", "add",     "sub",         "cat",      "batch_norm", "upsample_nearest1d",
      "upsample_nearest2d",   "upsample_nearest3d",      "upsample_linear1d",
      "upsample_bilinear2d",  "upsample_trilinear3d",    "upsample_bicubic2d", "__interpolate"};
  const std::string name = base_name(node);
  if (is_passthrough(node) || kinds.count(name)) return true;
  if (node->kind() == prim::ListConstruct) return true;
  if (name == "mul" || name == "div") return !is_tensor(node->input(1));
  return is_convolution(node) && has_pointwise_kernel(node) &&
         all_ones(node->namedInput("stride"));
}

bool GraphAnalysis::every_way(const Value* value, Memo& memo, const Judge& judge) const {
  const auto known = memo.find(value);
  if (known != memo.end()) return known->second;
  bool leads = false;
  bool every = true;
  for (const Use& use : value->uses()) {
    const auto outputs = use.user->outputs();
    if (use.user->kind() == prim::Return) {
      // A branch of an If hands its result to the If's own; loops are not looked into.
      const Node* owner = use.user->owningBlock()->owningNode();
      leads = true;
      every = every && owner && owner->kind() == prim::If &&
              every_way(owner->outputs()[use.offset], memo, judge);
      continue;
    }
    const bool counts = std::any_of(outputs.begin(), outputs.end(), [&](const Value* output) {
      // Sizes and the like carry no gradient.
      return ancestors_.count(output) != 0 &&
             (is_tensor(output) || output->type()->cast<ListType>() || outputs.size() > 1);
    });
    if (!counts) continue;
    leads = true;
    const Step step = judge(use);
    every = every && (step == Step::kArrived ||
                      (step == Step::kOnward && outputs.size() == 1 &&
                       every_way(outputs[0], memo, judge)));
  }
  return memo[value] = leads && every;
}

bool GraphAnalysis::redraws(const Value* value) const {
  return every_way(value, redraws_, [&](const Use& use) {
    return is_pointwise(use.user) ? Step::kOnward : Step::kElsewhere;
  });
}

// An instance norm takes the mean out of each channel, so the gradient in front of it has none, and
// neither has the gradient in front of steps that mix channels alike at every voxel.
bool GraphAnalysis::cancels(const Value* value) const {
  return every_way(value, cancels_, [&](const Use& use) {
    const std::string name = base_name(use.user);
    if (name == "instance_norm" && use.offset == 0 &&
        toIValue(use.user->namedInput("use_input_stats")) == IValue(true)) {
      return Step::kArrived;
    }
    const bool mixes = is_passthrough(use.user) || use.user->kind() == prim::ListConstruct ||
                       name == "add" || name == "sub" || name == "cat" ||
                       name == "squeeze" || name == "unsqueeze" ||
                       (is_convolution(use.user) && has_pointwise_kernel(use.user));
    return mixes ? Step::kOnward : Step::kElsewhere;
  });
}

void GraphAnalysis::judge(std::vector<TapFacts>& taps) const {
  ChannelAxes axes;
  for (const Node* node : findAllNodes(graph_, kTap, /*recurse=*/true)) {
    TapFacts& facts = taps.at(static_cast<size_t>(node->i(attr::idx)));
    facts.in_graph = true;
    facts.reaches_score = ancestors_.count(node->output()) != 0;
    facts.follows_score = tail_.count(node->output()) != 0;
    facts.redraws_score = facts.reaches_score && redraws(node->output());
    facts.weights_cancel = facts.reaches_score && cancels(node->output());
    const Channels channels = axes.of(node->output());
    facts.channels_last = channels == Channels::kLast;
    facts.is_product = channels == Channels::kNone;
  }
  // What folding and dead-code elimination took away never runs.
  taps.erase(std::remove_if(taps.begin(), taps.end(), [](const auto& tap) { return !tap.in_graph; }),
             taps.end());
}

}  // namespace medcam
