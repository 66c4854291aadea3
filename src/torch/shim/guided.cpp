// Activations with a gate. Forward is the plain operator, and so is its derivative: the gate is a
// hook in front of its backward, which lets the gradient through as it is, or, where the guided rule
// is on, only where gradient and input are positive (Springenberg et al. 2014, arXiv 1412.6806).
#include "guided.h"

#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/jit/ir/constants.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/csrc/jit/runtime/operator.h>

#include <functional>
#include <unordered_map>
#include <utility>
#include <vector>

#include "internal.h"
#include "operators.h"

namespace medcam {

using namespace torch::jit;
using torch::autograd::variable_list;

namespace {

struct Activation {
  mc_guide guide;
  // Whether its derivative is 0 at every input that is not positive: then only the sign of the
  // gradient needs a gate, and nothing has to be kept of the input.
  bool closed;
};

// By the operator's name without the underscore of the in-place variant.
const std::unordered_map<std::string, Activation> kActivations = {
    {"relu", {MC_GUIDE_RELU, true}},      {"relu6", {MC_GUIDE_RELU, true}},
    {"hardtanh", {MC_GUIDE_RELU, true}},  {"threshold", {MC_GUIDE_RELU, true}},
    {"clamp", {MC_GUIDE_RELU, false}},    {"clamp_min", {MC_GUIDE_RELU, false}},
    {"clip", {MC_GUIDE_RELU, false}},     {"leaky_relu", {MC_GUIDE_ALL, false}},
    {"prelu", {MC_GUIDE_ALL, false}},     {"rrelu", {MC_GUIDE_ALL, false}},
    {"elu", {MC_GUIDE_ALL, false}},       {"selu", {MC_GUIDE_ALL, false}},
    {"celu", {MC_GUIDE_ALL, false}},      {"gelu", {MC_GUIDE_ALL, false}},
    {"silu", {MC_GUIDE_ALL, false}},      {"mish", {MC_GUIDE_ALL, false}},
    {"hardswish", {MC_GUIDE_ALL, false}},
};

class Gate : public torch::autograd::FunctionPreHook {
 public:
  Gate(std::shared_ptr<std::atomic<bool>> on, at::Tensor shut, size_t output)
      : on_(std::move(on)), shut_(std::move(shut)), output_(output) {}

  variable_list operator()(const variable_list& gradients) override {
    variable_list passed = gradients;
    at::Tensor& gradient = passed.at(output_);
    if (on_->load() && gradient.defined()) {
      // Neither hides a NaN.
      gradient = gradient.clamp_min(0);
      if (shut_.defined()) gradient.masked_fill_(shut_, 0);
    }
    return passed;
  }

 private:
  std::shared_ptr<std::atomic<bool>> on_;
  at::Tensor shut_;
  size_t output_;
};

// One operator, with what its guided variant needs.
struct Guided {
  Activation activation;
  size_t arguments;
  std::function<void(Stack&)> plain;
  // The out-of-place variant of an operator that writes in place.
  std::function<void(Stack&)> out_of_place;

  // Takes the arguments from the stack and leaves the result, as the plain operator does.
  void run(Stack& stack, Guidance& guidance) const {
    const at::Tensor x = stack[stack.size() - arguments].toTensor();
    if (!at::GradMode::is_enabled() || !x.requires_grad()) {
      plain(stack);
      return;
    }
    ++guidance.activations;
    const at::Tensor shut = activation.closed ? at::Tensor() : x.detach().le(0);
    const auto put_gate = [&](const at::Tensor& y) {
      y.grad_fn()->add_pre_hook(std::make_unique<Gate>(guidance.on, shut, y.output_nr()));
    };
    if (out_of_place && x.is_view()) {
      run_on_view(stack, x, put_gate);
    } else {
      plain(stack);
      put_gate(stack.back().toTensor());
    }
  }

 private:
  // Writing to a view puts the operator into the history of what it is a view of, where no hook is
  // called. So a copy is activated and then copied over the view.
  template <typename F>
  void run_on_view(Stack& stack, at::Tensor x, F&& put_gate) const {
    const at::Tensor before = x.clone();
    Stack copied(stack.end() - static_cast<int64_t>(arguments), stack.end());
    copied.front() = before;
    out_of_place(copied);
    put_gate(copied.back().toTensor());
    x.copy_(copied.back().toTensor());
    // The same values to the last bit: on memory that lies otherwise, the loops may be others.
    const at::NoGradGuard no_grad;
    x.copy_(before);
    plain(stack);
  }
};

bool is_zero(const Value* value) {
  const auto constant = toIValue(value);
  return constant && constant->isScalar() && constant->toScalar().toDouble() == 0;
}

// Whether an activation is guided; a clamp, hardtanh or threshold only where it is a ReLU.
bool is_guided(const Node* node, mc_guide guide) {
  const std::string name = base_name(node);
  const auto activation = kActivations.find(name);
  if (activation == kActivations.end() || activation->second.guide > guide) return false;
  const FunctionSchema* schema = node->maybeSchema();
  if (!schema || !schema->overload_name().empty()) return false;
  if (name == "threshold") return is_zero(node->input(1)) && is_zero(node->input(2));
  if (name == "hardtanh" || name == "clamp" || name == "clamp_min" || name == "clip") {
    return is_zero(node->input(1));
  }
  return true;
}

template <typename F>
void for_each_node(Block* block, F&& visit) {
  for (auto node = block->nodes().begin(); node != block->nodes().end();) {
    Node* current = *node++;
    for (Block* inner : current->blocks()) for_each_node(inner, visit);
    visit(current);
  }
}

// The operator NAME of PyTorch's library without an overload name, or nothing.
std::shared_ptr<Operator> find_plain(const std::string& name) {
  return findOperatorFor({"aten::" + name, ""});
}

// Registers medcam::guided_NAME: the arguments and the aliasing of aten::NAME, and the tape.
void register_guided(const std::string& name, const Activation& activation,
                     const Operator* out_of_place, const Operator& plain) {
  std::vector<Argument> arguments = plain.schema().arguments();
  Guided guided = {activation, arguments.size(), plain.getOperation(), nullptr};
  if (out_of_place) guided.out_of_place = out_of_place->getOperation();
  arguments.emplace_back("tape", c10::getCustomClassType<c10::intrusive_ptr<Tape>>(), std::nullopt,
                         std::nullopt, /*kwarg_only=*/true);
  registerOperator(Operator(
      "medcam::guided_" + name, "", std::move(arguments), plain.schema().returns(),
      [guided](Stack& stack) {
        const auto tape = pop(stack).toCustomClass<Tape>();
        guided.run(stack, tape->guidance);
      },
      c10::AliasAnalysisKind::FROM_SCHEMA));
}

void register_operators() {
  static const bool once = [] {
    for (const auto& [name, activation] : kActivations) {
      const auto plain = find_plain(name);
      const auto in_place = find_plain(name + "_");
      if (plain) register_guided(name, activation, nullptr, *plain);
      if (plain && in_place) register_guided(name + "_", activation, plain.get(), *in_place);
    }
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace

std::map<std::string, size_t> count_activations(Graph& graph) {
  std::map<std::string, size_t> counts;
  for_each_node(graph.block(), [&](const Node* node) {
    if (is_guided(node, MC_GUIDE_ALL)) ++counts[base_name(node)];
  });
  return counts;
}

std::shared_ptr<Graph> guide_graph(Graph& tapped, mc_guide guide) {
  register_operators();
  std::shared_ptr<Graph> graph = tapped.copy();
  Value* tape = graph->inputs().back();
  for_each_node(graph->block(), [&](Node* node) {
    if (!is_guided(node, guide)) return;
    std::vector<Value*> inputs = node->inputs().vec();
    inputs.push_back(tape);
    const std::string name = node->kind().toUnqualString();
    Node* guided = graph->create(Symbol::fromQualString("medcam::guided_" + name), inputs);
    guided->insertBefore(node);
    guided->output()->copyMetadata(node->output());
    node->output()->replaceAllUsesWith(guided->output());
    node->destroy();
  });
  graph->lint();
  return graph;
}

static at::Tensor guided_relu(const at::Tensor& x, Guidance& guidance) {
  if (guidance.guide == MC_GUIDE_NONE) return x.relu();
  const Guided relu = {kActivations.at("relu"), 1, find_plain("relu")->getOperation(), nullptr};
  Stack stack = {x};
  relu.run(stack, guidance);
  return stack.back().toTensor();
}

}  // namespace medcam

extern "C" {

void mc_tape_guide(mc_tape* tape, mc_guide guide) { tape->tape->guidance.guide = guide; }

void mc_tape_set_guided(const mc_tape* tape, bool guided) {
  tape->tape->guidance.on->store(guided);
}

size_t mc_tape_guided_activations(const mc_tape* tape) {
  return tape->tape->guidance.activations;
}

bool mc_tape_relu(mc_tape* tape, const mc_tensor* x, mc_tensor** y, char** error) {
  return medcam::guarded(error, [&] {
    *y = medcam::wrap(medcam::guided_relu(medcam::unwrap(x), tape->tape->guidance));
  });
}

}  // extern "C"
