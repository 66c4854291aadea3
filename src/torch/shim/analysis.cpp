#include "analysis.h"

#include <torch/csrc/jit/ir/constants.h>

#include <algorithm>

#include "operators.h"
#include "origins.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

// Whether the elements of the output are those of the first input in the same order, in another shape, for one
// sample as for a batch.
bool reshapes_scores(const Node* node) {
  const Operator& op = operator_of(node);
  // y[0]
  if (op.family == Family::kSelect) {
    return toIValue(node->input(1)) == IValue(0) && toIValue(node->input(2)) == IValue(0);
  }
  return op.axes == Axes::kReshaped;
}

}  // namespace

GraphAnalysis::GraphAnalysis(Graph& graph, const Module& module) : graph_(graph), module_(module) {
  find_logits();
  redraws_[logits_] = true;
  cancels_[logits_] = false;
  find_ancestors();
}

void GraphAnalysis::find_logits() {
  Value* output = graph_.outputs().at(0);
  logits_ = output;
  while (!logits_->node()->inputs().empty()) {
    tail_.insert(logits_);
    Node* node = logits_->node();
    const Operator& op = operator_of(node);
    if (op.has(kEndsInProbabilities)) {
      const std::string name = op.name;
      final_activation_ = name == "_softmax" ? "softmax" : name;
      logits_ = node->input(0);
      return;
    }
    if (!op.has(kPassesThrough) && !reshapes_scores(node)) break;
    logits_ = node->input(0);
  }
  logits_ = output;
  tail_.clear();
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
    if (operator_of(node).has(kStopsGradient)) continue;
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

// Whether no activation but the first input goes in. A traced number is a constant tensor without axes.
bool GraphAnalysis::has_one_tensor(const Node* node) const {
  const auto inputs = node->inputs();
  return std::count_if(inputs.begin(), inputs.end(), [&](const Value* value) {
           const auto constant = parameter(value, module_);
           return is_tensor(value) && !(constant && constant->dim() == 0);
         }) == 1;
}

// Whether a softmax or concatenation is along an axis of the image. Where the rank decides, it is not.
bool GraphAnalysis::is_along_image_axis(const Node* node) const {
  const auto axis = toIValue(node->input(1));
  if (!axis || !axis->isInt()) return false;
  const int64_t number = axis->toInt();
  if (channels_.of(node->output()) == Channels::kLast) {
    return number == 1 || number == 2 || number == -2 || number == -3;
  }
  return number >= 2 || number == -1 || number == -2;
}

// Whether a voxel of the output depends on the same voxel of the input alone; or on others of its channel, as those
// of every channel do, so that the channels' mean gradients keep their proportions. A product of two activations is
// not pointwise: one gates the other's gradient.
bool GraphAnalysis::is_pointwise(const Node* node) const {
  const Operator& op = operator_of(node);
  if (op.family == Family::kConvolution) {
    return has_pointwise_kernel(node) && all_ones(node->namedInput("stride"));
  }
  if (op.family == Family::kAlongAxis && is_along_image_axis(node)) return false;
  if (op.family == Family::kBatchNorm) return toIValue(node->namedInput("training")) == IValue(false);
  if (op.voxels == Voxels::kGated) return has_one_tensor(node);
  return op.voxels != Voxels::kUnknown;
}

// Whether a step mixes the channels of a voxel linearly, with the same weights at every voxel: where the
// gradient behind it has a mean of zero, so has the one in front of it.
bool GraphAnalysis::mixes_alike(const Node* node) const {
  const Operator& op = operator_of(node);
  if (op.family == Family::kConvolution) return has_pointwise_kernel(node);
  // A squeeze moves no voxel; its row has no Voxels, as its output has other axes.
  return op.has(kMixesAlike) && (op.axes == Axes::kReshaped || is_pointwise(node));
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

// An instance norm takes the mean out of each channel, so the gradient in front of it has a mean of zero.
bool GraphAnalysis::cancels(const Value* value) const {
  return every_way(value, cancels_, [&](const Use& use) {
    if (operator_of(use.user).family == Family::kInstanceNorm && use.offset == 0 &&
        toIValue(use.user->namedInput("use_input_stats")) == IValue(true)) {
      return Step::kArrived;
    }
    return mixes_alike(use.user) ? Step::kOnward : Step::kElsewhere;
  });
}

void GraphAnalysis::judge(std::vector<TapFacts>& taps) const {
  const Origins origins(graph_, module_);
  for (const Node* node : findAllNodes(graph_, kTap, /*recurse=*/true)) {
    TapFacts& facts = taps.at(static_cast<size_t>(node->i(attr::idx)));
    facts.in_graph = true;
    facts.reaches_score = ancestors_.count(node->output()) != 0;
    facts.follows_score = tail_.count(node->output()) != 0;
    facts.redraws_score = facts.reaches_score && redraws(node->output());
    facts.weights_cancel = facts.reaches_score && cancels(node->output());
    const Channels channels = channels_.of(node->output());
    facts.channels_last = channels == Channels::kLast;
    facts.is_product = channels == Channels::kNone;
    facts.regrids = origins.regrids(node->input(0));
    facts.embeds_patches = origins.embeds_patches(node->input(0));
    facts.run = origins.run(node);
    if (!facts.run.empty()) facts.sources = origins.sources(node->input(0));
  }
  // What folding and dead-code elimination took away never runs.
  taps.erase(std::remove_if(taps.begin(), taps.end(), [](const auto& tap) { return !tap.in_graph; }),
             taps.end());
}

}  // namespace medcam
