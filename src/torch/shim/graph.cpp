// Inlines the forward of a module and puts a tap after every submodule call.
#include "graph.h"

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/autocast.h>
#include <torch/csrc/jit/passes/constant_propagation.h>
#include <torch/csrc/jit/passes/dead_code_elimination.h>
#include <torch/csrc/jit/passes/inliner.h>
#include <torch/csrc/jit/passes/peephole.h>

#include <algorithm>
#include <cctype>
#include <optional>
#include <unordered_set>

#include "operators.h"
#include "tape.h"
#include "taps.h"
#include "values.h"

namespace medcam {

using namespace torch::jit;

namespace {

// The dotted name of the module that a value holds, "" for the root or for what is no submodule.
std::string module_path(const Value* value) {
  const Node* node = value->node();
  if (node->kind() != prim::GetAttr) return "";
  const std::string parent = module_path(node->input(0));
  const std::string& own = node->s(attr::name);
  return parent.empty() ? own : parent + "." + own;
}

// "forward", and the "forward1", "forward2"... that tracing gives a module that runs more than once.
bool is_forward(const std::string& method) {
  return method.rfind("forward", 0) == 0 &&
         std::all_of(method.begin() + 7, method.end(), [](unsigned char c) { return isdigit(c); });
}

// The last part of a class name, without what tracing mangles in.
std::string class_name(const ClassType& type) {
  return type.name() ? type.name()->name() : std::string("?");
}

class Tapper {
 public:
  Tapper(Value* tape, std::vector<TapFacts>& taps, std::vector<Untapped>& untapped)
      : tape_(tape), taps_(taps), untapped_(untapped) {}

  // Inlines the first call found and taps it; false when there is none left. Names are only known
  // while inlining, one level at a time: instances of a type share one piece of code.
  bool step(Block* block) {
    for (Node* node : block->nodes()) {
      for (Block* inner : node->blocks()) {
        if (step(inner)) return true;
      }
      if (node->kind() == prim::CallMethod && inline_method(node)) return true;
      if (node->kind() == prim::CallFunction && inline_function(node)) return true;
    }
    return false;
  }

 private:
  bool inline_method(Node* call) {
    const auto type = call->input(0)->type()->cast<ClassType>();
    if (!type) return false;
    GraphFunction* callee = tryToGraphFunction(type->getMethod(call->s(attr::name)));
    if (!callee) return false;
    const std::string path = module_path(call->input(0));
    if (!path.empty() && is_forward(call->s(attr::name)) && call->outputs().size() == 1) {
      if (is_tensor(call->output())) {
        insert_tap(call, tape_, path, taps_.size());
        taps_.push_back({path, class_name(*type)});
      } else {
        untapped_.push_back({path, call->output()->type()->annotation_str()});
      }
    }
    inlineCallTo(call, callee, callee->graph().get());
    return true;
  }

  bool inline_function(Node* call) {
    const auto type = call->input(0)->type()->cast<FunctionType>();
    GraphFunction* callee = type ? tryToGraphFunction(*type->function()) : nullptr;
    if (!callee) return false;
    call->removeInput(0);
    inlineCallTo(call, callee, callee->graph().get());
    return true;
  }

  Value* tape_;
  std::vector<TapFacts>& taps_;
  std::vector<Untapped>& untapped_;
};

// The module is in evaluation mode for good, and what its code never sets stays: what depends on its flags
// and numbers can be folded.
void fold_attributes(Graph& graph, const Module& module) {
  std::unordered_set<std::string> set;
  for (const Node* node : findAllNodes(graph, prim::SetAttr, /*recurse=*/true)) {
    set.insert(node->s(attr::name));
  }
  for (Node* node : findAllNodes(graph, prim::GetAttr, /*recurse=*/true)) {
    if (set.count(node->s(attr::name))) continue;
    const auto value = held(node->output(), module);
    if (!value || !(value->isBool() || value->isInt() || value->isDouble() || value->isString())) {
      continue;
    }
    WithInsertPoint here(node);
    node->output()->replaceAllUsesWith(graph.insertConstant(*value));
  }
}

// The casts of `torch.autocast` blocks, and of autocast that is on in this thread: libtorch makes them part
// of a graph, after these two passes, before it runs it.
void insert_autocasts(std::shared_ptr<Graph>& graph) {
  PeepholeOptimize(graph, /*disable_shape_peepholes=*/true);
  ConstantPropagationImmutableTypes(graph);
  Autocast(graph);
}

void insert_score(Graph& graph, Value* tape, Value* logits) {
  Node* producer = logits->node();
  WithInsertPoint here(producer->kind() == prim::Param ? *graph.nodes().begin() : producer->next());
  Value* copy = graph.insertConstant(false);
  Node* score = graph.insertNode(graph.create(kScore, {logits, tape, copy}, /*outputs=*/1));
  score->output()->setType(TensorType::get());
  logits->replaceAllUsesAfterNodeWith(score, score->output());
}

bool is_in_loop(const Node* node) {
  for (const Node* owner = node->owningBlock()->owningNode(); owner;
       owner = owner->owningBlock()->owningNode()) {
    if (owner->kind() == prim::Loop) return true;
  }
  return false;
}

void collect(Block* block, std::vector<Node*>& nodes) {
  for (Node* node : block->nodes()) {
    nodes.push_back(node);
    for (Block* inner : node->blocks()) collect(inner, nodes);
  }
}

bool is_writer(const Node* node) {
  const auto* schema = node->maybeSchema();
  return schema && schema->is_mutable();
}

// Puts a tensor where others will find it.
bool keeps(const Node* node) {
  return node->kind() == prim::ListConstruct || node->kind() == prim::TupleConstruct ||
         node->kind() == prim::DictConstruct || node->kind() == prim::SetAttr ||
         base_name(node) == "append";
}

// Whether something else that is in the memory of a tap's input is still read after the tap.
bool is_shared(const Graph& graph, const AliasDb& aliases, const std::vector<Node*>& nodes, Node* tap) {
  const auto is_read = [&](const Value* value) {
    return value->type()->isSubtypeOf(*TensorType::get()) && aliases.mayAlias(value, tap->input(0)) &&
           std::any_of(value->uses().begin(), value->uses().end(), [&](const Use& use) {
             return use.user != tap && (use.user->isAfter(tap) || keeps(use.user));
           });
  };
  const auto outputs_are_read = [&](const Node* node) {
    return node->isBefore(tap) &&
           std::any_of(node->outputs().begin(), node->outputs().end(), is_read);
  };
  return std::any_of(graph.inputs().begin(), graph.inputs().end(), is_read) ||
         std::any_of(nodes.begin(), nodes.end(), outputs_are_read);
}

// Whether what a norm gave can be computed once more when it is needed, from its input, which autograd keeps
// anyway: nothing else has it before the tap, and nothing writes to what it is computed from.
bool can_compute_again(const AliasDb& aliases, const Node* tap) {
  const Node* norm = tap->input(0)->node();
  const bool by_instance = norm->kind() == aten::instance_norm;
  if ((!by_instance && norm->kind() != aten::batch_norm) || norm->output()->uses().size() != 1 ||
      toIValue(norm->input(5)) != c10::IValue(by_instance)) {
    return false;
  }
  for (size_t i = 0; i < 5; ++i) {
    if (aliases.hasWriters(norm->input(i))) return false;
  }
  return true;
}

void replace_by_tap_norm(Graph& graph, Node* tap) {
  const Node* norm = tap->input(0)->node();
  WithInsertPoint here(tap);
  std::vector<Value*> inputs = {tap->input(0), tap->input(1), tap->input(2)};
  for (size_t i = 0; i < 5; ++i) inputs.push_back(norm->input(i));
  inputs.push_back(graph.insertConstant(norm->kind() == aten::instance_norm));
  inputs.push_back(norm->input(7));
  Node* other = graph.insertNode(graph.create(kTapNorm, inputs, /*outputs=*/1));
  other->output()->setType(TensorType::get());
  tap->output()->replaceAllUsesWith(other->output());
  tap->destroy();
}

// Returns its input in evaluation, which alias analysis does not know: left out.
void drop_dropout(Block* block) {
  for (auto node = block->nodes().begin(); node != block->nodes().end(); ++node) {
    for (Block* inner : node->blocks()) drop_dropout(inner);
    if (operator_of(*node).family != Family::kDropout ||
        toIValue(node->namedInput("train")) != c10::IValue(false)) {
      continue;
    }
    node->output()->replaceAllUsesWith(node->input(0));
    node.destroyCurrent();
  }
}

// A record must not change after it was taken: where something writes to what a tap returned, the
// tap keeps a copy.
void protect_from_writes(const std::shared_ptr<Graph>& graph) {
  const AliasDb aliases(graph);
  std::vector<Node*> nodes;
  collect(graph->block(), nodes);
  // The graph is changed at the end: the analysis knows it as it was.
  std::vector<Node*> norms, written_taps, shared_taps;
  for (const Symbol kind : {kTap, kScore}) {
    for (Node* node : findAllNodes(*graph, kind, /*recurse=*/true)) {
      if (!aliases.hasWriters(node->output())) continue;
      const ValueSet output = {node->output()};
      const bool written =
          is_in_loop(node) || std::any_of(nodes.begin(), nodes.end(), [&](Node* writer) {
            return is_writer(writer) && writer->isAfter(node) &&
                   aliases.writesToAlias(writer, output);
          });
      if (!written) continue;
      if (kind == kTap && !is_in_loop(node) && can_compute_again(aliases, node)) {
        norms.push_back(node);
        continue;
      }
      written_taps.push_back(node);
      if (kind == kTap && is_shared(*graph, aliases, nodes, node)) shared_taps.push_back(node);
    }
  }
  const auto set_true = [&](Node* node, size_t from_the_end) {
    WithInsertPoint here(node);
    node->replaceInput(node->inputs().size() - from_the_end, graph->insertConstant(true));
  };
  for (Node* node : written_taps) set_true(node, 1);
  for (Node* node : shared_taps) set_true(node, 2);
  for (Node* node : norms) replace_by_tap_norm(*graph, node);
}

}  // namespace

TappedGraph tap_graph(const Module& module, const OutputChoice& output, bool operations) {
  GraphFunction* forward = tryToGraphFunction(module.get_method("forward").function());
  TORCH_CHECK(forward, "forward is not TorchScript code");
  TappedGraph tapped;
  std::shared_ptr<Graph> graph = forward->graph()->copy();
  Value* tape = graph->addInput("tape");
  tape->setType(c10::getCustomClassType<c10::intrusive_ptr<Tape>>());

  Tapper tapper(tape, tapped.taps, tapped.untapped);
  while (tapper.step(graph->block())) {
  }
  insert_autocasts(graph);
  fold_attributes(*graph, module);
  ConstantPropagation(graph);
  drop_dropout(graph->block());
  EliminateDeadCode(graph);
  // Before anything depends on the output that is explained: names are those of the file.
  if (operations) {
    tap_operations(*graph, module, tape, tapped.taps);
  } else {
    tapped.bare_convolutions = has_bare_convolutions(*graph);
  }
  tapped.returned = keep_only(graph, output);

  const GraphAnalysis analysis(*graph, module);
  tapped.final_activation = analysis.final_activation();
  analysis.judge(tapped.taps);
  // What only the other outputs need is not run.
  EliminateDeadCode(graph);
  tapped.input = input_facts(*graph, module);
  tapped.training = training_steps(*graph, module);
  tapped.foreign = foreign_steps(*graph);
  if (!tapped.final_activation.empty()) insert_score(*graph, tape, analysis.logits());
  protect_from_writes(graph);
  graph->lint();
  tapped.graph = std::move(graph);
  return tapped;
}

}  // namespace medcam
