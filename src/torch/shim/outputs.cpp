#include "outputs.h"

#include <torch/csrc/jit/ir/alias_analysis.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/passes/lower_tuples.h>
#include <torch/csrc/jit/passes/peephole_list_idioms.h>
#include <torch/csrc/jit/passes/remove_mutation.h>

#include <algorithm>
#include <optional>
#include <sstream>
#include <vector>

namespace medcam {

using namespace torch::jit;

namespace {

// A part of what forward returns that has no parts itself.
template <typename T>
struct Leaf {
  std::string name;
  T value;
};

std::string joined(const std::string& parent, const std::string& own) {
  return parent.empty() ? own : parent + "." + own;
}

// The name of a tuple's element: that of its field, or its place.
std::string element_name(const c10::TupleType& type, size_t index) {
  const auto& schema = type.schema();
  return schema ? schema->arguments().at(index).name() : std::to_string(index);
}

void flatten(const c10::IValue& value, const std::string& name,
             std::vector<Leaf<c10::IValue>>& leaves) {
  if (value.isTuple()) {
    const auto tuple = value.toTuple();
    const auto type = tuple->type();
    const auto& elements = tuple->elements();
    for (size_t i = 0; i < elements.size(); ++i) {
      flatten(elements[i], joined(name, element_name(*type, i)), leaves);
    }
  } else if (value.isList()) {
    const auto elements = value.toListRef();
    for (size_t i = 0; i < elements.size(); ++i) {
      flatten(elements[i], joined(name, std::to_string(i)), leaves);
    }
  } else if (value.isGenericDict()) {
    for (const auto& entry : value.toGenericDict()) {
      std::ostringstream key;
      if (entry.key().isString()) {
        key << entry.key().toStringRef();
      } else {
        key << entry.key();
      }
      flatten(entry.value(), joined(name, key.str()), leaves);
    }
  } else {
    leaves.push_back({name, value});
  }
}

struct Entry {
  std::string key;
  Value* value;
};

// The entries of a dict that is made, and filled under constant keys, on one level; nothing for others.
std::optional<std::vector<Entry>> entries_of(Node* dict) {
  std::vector<Entry> entries;
  const auto set = [&](const Value* key, Value* value) {
    const auto constant = toIValue(key);
    if (!constant || !constant->isString()) return false;
    const std::string& text = constant->toStringRef();
    const auto same = [&](const Entry& entry) { return entry.key == text; };
    const auto found = std::find_if(entries.begin(), entries.end(), same);
    if (found == entries.end()) {
      entries.push_back({text, value});
    } else {
      found->value = value;
    }
    return true;
  };
  for (size_t i = 0; i + 1 < dict->inputs().size(); i += 2) {
    if (!set(dict->input(i), dict->input(i + 1))) return std::nullopt;
  }
  std::vector<Node*> writers;
  for (const Use& use : dict->output()->uses()) {
    const auto* schema = use.user->maybeSchema();
    if (!schema || !schema->is_mutable()) continue;
    const bool plain = use.user->kind() == Symbol::aten("_set_item") && use.offset == 0 &&
                       use.user->owningBlock() == dict->owningBlock();
    if (!plain) return std::nullopt;
    writers.push_back(use.user);
  }
  std::sort(writers.begin(), writers.end(),
            [](const Node* a, const Node* b) { return a->isBefore(b); });
  for (Node* writer : writers) {
    if (!set(writer->input(1), writer->input(2))) return std::nullopt;
  }
  return entries;
}

// As above for a value of a graph; false at the first part of which the graph does not tell the parts.
bool flatten(Value* value, const std::string& name, const AliasDb& aliases,
             std::vector<Leaf<Value*>>& leaves) {
  Node* node = value->node();
  const auto kind = value->type()->kind();
  if (kind == TypeKind::TupleType && node->kind() == prim::TupleConstruct) {
    const auto type = value->type()->expect<c10::TupleType>();
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      const std::string own = joined(name, element_name(*type, i));
      if (!flatten(node->input(i), own, aliases, leaves)) return false;
    }
    return true;
  }
  if (kind == TypeKind::ListType && node->kind() == prim::ListConstruct &&
      !aliases.hasWriters(value)) {
    for (size_t i = 0; i < node->inputs().size(); ++i) {
      const std::string own = joined(name, std::to_string(i));
      if (!flatten(node->input(i), own, aliases, leaves)) return false;
    }
    return true;
  }
  const bool makes_dict = node->kind() == prim::DictConstruct ||
                          (node->kind() == Symbol::aten("dict") && node->inputs().empty());
  if (kind == TypeKind::DictType && makes_dict) {
    const auto entries = entries_of(node);
    if (!entries) return false;
    for (const Entry& entry : *entries) {
      if (!flatten(entry.value, joined(name, entry.key), aliases, leaves)) return false;
    }
    return true;
  }
  switch (kind) {
    case TypeKind::TensorType:
    case TypeKind::NoneType:
    case TypeKind::IntType:
    case TypeKind::FloatType:
    case TypeKind::BoolType:
    case TypeKind::StringType:
      leaves.push_back({name, value});
      return true;
    default:
      return false;
  }
}

// The chosen leaf, or null.
template <typename T, typename IsTensor>
const Leaf<T>* choose(const std::vector<Leaf<T>>& leaves, const OutputChoice& choice,
                      IsTensor is_tensor) {
  for (size_t i = 0; i < leaves.size(); ++i) {
    const bool chosen = choice.index >= 0      ? static_cast<int64_t>(i) == choice.index
                        : !choice.name.empty() ? leaves[i].name == choice.name
                                               : is_tensor(leaves[i].value);
    if (chosen) return is_tensor(leaves[i].value) ? &leaves[i] : nullptr;
  }
  return nullptr;
}

std::string listed(const std::vector<Leaf<c10::IValue>>& leaves) {
  std::ostringstream text;
  for (size_t i = 0; i < leaves.size(); ++i) {
    text << (i == 0 ? "" : ", ") << i;
    const std::string& name = leaves[i].name;
    if (!name.empty() && name != std::to_string(i)) text << " '" << name << "'";
    const c10::IValue& value = leaves[i].value;
    if (value.isTensor()) {
      text << " " << value.toTensor().sizes();
    } else {
      text << " (no tensor: " << value.tagKind() << ")";
    }
  }
  return text.str();
}

}  // namespace

at::Tensor pick(const c10::IValue& returned, const OutputChoice& choice) {
  std::vector<Leaf<c10::IValue>> leaves;
  flatten(returned, "", leaves);
  const auto* chosen =
      choose(leaves, choice, [](const c10::IValue& value) { return value.isTensor(); });
  if (chosen) return chosen->value.toTensor();
  const std::string wish = choice.index >= 0      ? "output " + std::to_string(choice.index)
                           : !choice.name.empty() ? "output '" + choice.name + "'"
                                                  : "output";
  TORCH_CHECK(false, "forward returns no tensor as ", wish, "; what it returns is ",
              leaves.empty() ? "empty" : listed(leaves),
              ". Choose one by its number or name (--explain-output, Model::with_output)");
}

Returned keep_only(const std::shared_ptr<Graph>& graph, const OutputChoice& choice) {
  // Not for the output alone: of what was in a list or a tuple, as a decoder's skips, alias analysis takes each
  // for the other.
  RemoveListMutation(graph);
  PeepholeOptimizeListIdioms(graph);
  LowerSimpleTuples(graph);
  std::vector<Leaf<Value*>> leaves;
  // Leaves listed before the first one that the graph cannot resolve are still exact.
  const bool all_told = flatten(graph->outputs().at(0), "", AliasDb(graph), leaves);
  const auto is_tensor = [](const Value* value) {
    return value->type()->kind() == TypeKind::TensorType;
  };
  std::optional<size_t> tensors;
  if (all_told) {
    tensors = std::count_if(leaves.begin(), leaves.end(),
                            [&](const auto& leaf) { return is_tensor(leaf.value); });
  }
  const auto* chosen = choose(leaves, choice, is_tensor);
  if (!chosen) return {false, tensors};
  Value* output = chosen->value;
  graph->eraseOutput(0);
  graph->registerOutput(output);
  return {true, tensors};
}

}  // namespace medcam
