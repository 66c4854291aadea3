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
#include <optional>
#include <utility>
#include <vector>

#include "boundary.h"
#include "operators.h"
#include "tape.h"
#include "values.h"

namespace medcam {

namespace jit = torch::jit;
using namespace torch::jit;
using torch::autograd::variable_list;

namespace {

// Lets through the part of a gradient that the guided rule, if it is on, says: a hook of the activation's node.
class Gate : public torch::autograd::FunctionPreHook {
 public:
  // The gate of one activation with the input x and the output y.
  Gate(const Operator& op, const Guidance& guidance, const at::Tensor& shut, const at::Tensor& y)
      : on_(guidance.on), shut_(shut), number_(y.output_nr()) {
    if (!guidance.rule || !op.has(kFlatBelowZero)) return;
    rule_ = guidance.rule;
    // y itself would hold the node that holds this hook.
    output_ = y.detach();
    version_ = y._version();
  }

  variable_list operator()(const variable_list& gradients) override {
    variable_list passed = gradients;
    at::Tensor& gradient = passed.at(number_);
    if (!on_->load() || !gradient.defined()) return passed;
    // What writes over y leaves the derivative as it was, but not what the rule would read.
    if (rule_ && output_._version() == version_) {
      gradient = (*rule_)(gradient, output_);
      return passed;
    }
    // Neither hides a NaN.
    gradient = gradient.clamp_min(0);
    if (shut_.defined()) gradient.masked_fill_(shut_, 0);
    return passed;
  }

 private:
  std::shared_ptr<std::atomic<bool>> on_;
  // Where the input is not positive; undefined where the derivative is 0 there anyway.
  at::Tensor shut_;
  size_t number_;
  std::optional<GateRule> rule_;
  at::Tensor output_;
  uint32_t version_ = 0;
};

// One operator, with what its guided variant needs.
struct Guided {
  const Operator& op;
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
    const at::Tensor shut = op.has(kFlatBelowZero) ? at::Tensor() : x.detach().le(0);
    const auto put_gate = [&](const at::Tensor& y) {
      y.grad_fn()->add_pre_hook(std::make_unique<Gate>(op, guidance, shut, y));
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
    // Once more in place: with other strides ATen may pick another loop, whose rounding differs.
    const at::NoGradGuard no_grad;
    x.copy_(before);
    plain(stack);
  }
};

// From which choice on an operator is guided; MC_GUIDE_NONE if never.
mc_guide guide_of(const Operator& op) {
  if (op.has(kLikeRelu)) return MC_GUIDE_RELU;
  return op.has(kOtherActivation) ? MC_GUIDE_ALL : MC_GUIDE_NONE;
}

// Whether an activation is guided; a clamp, hardtanh or threshold only where it is a ReLU.
bool is_guided(const Node* node, mc_guide guide) {
  const Operator& op = operator_of(node);
  const mc_guide from = guide_of(op);
  if (from == MC_GUIDE_NONE || from > guide) return false;
  const FunctionSchema* schema = node->maybeSchema();
  if (!schema || !schema->overload_name().empty()) return false;
  for (size_t i = 1; i <= op.zeros; ++i) {
    if (!is_zero(node->input(i))) return false;
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
std::shared_ptr<jit::Operator> find_plain(const std::string& name) {
  return findOperatorFor({"aten::" + name, ""});
}

// Registers medcam::guided_NAME: the arguments and the aliasing of aten::NAME, and the tape.
void register_guided(const std::string& name, const Operator& op, const jit::Operator* out_of_place,
                     const jit::Operator& plain) {
  std::vector<Argument> arguments = plain.schema().arguments();
  Guided guided = {op, arguments.size(), plain.getOperation(), nullptr};
  if (out_of_place) guided.out_of_place = out_of_place->getOperation();
  arguments.emplace_back("tape", c10::getCustomClassType<c10::intrusive_ptr<Tape>>(), std::nullopt,
                         std::nullopt, /*kwarg_only=*/true);
  registerOperator(jit::Operator(
      "medcam::guided_" + name, "", std::move(arguments), plain.schema().returns(),
      [guided](Stack& stack) {
        const auto tape = pop(stack).toCustomClass<Tape>();
        guided.run(stack, tape->guidance);
      },
      c10::AliasAnalysisKind::FROM_SCHEMA));
}

void register_operators() {
  static const bool once = [] {
    for (const Operator& op : operators()) {
      if (guide_of(op) == MC_GUIDE_NONE) continue;
      const std::string name = op.name;
      const auto plain = find_plain(name);
      const auto in_place = find_plain(name + "_");
      if (plain) register_guided(name, op, nullptr, *plain);
      if (plain && in_place) register_guided(name + "_", op, plain.get(), *in_place);
    }
    return true;
  }();
  static_cast<void>(once);
}

}  // namespace

at::Tensor GateRule::operator()(const at::Tensor& gradient, const at::Tensor& output) const {
  mc_tensor* passed = nullptr;
  char* error = nullptr;
  if (!call_(context_.get(), reinterpret_cast<const mc_tensor*>(&gradient),
             reinterpret_cast<const mc_tensor*>(&output), &passed, &error)) {
    const std::string message = error ? error : "out of memory";
    mc_string_free(error);
    TORCH_CHECK(false, "guided activation: ", message);
  }
  const std::unique_ptr<at::Tensor> owned(reinterpret_cast<at::Tensor*>(passed));
  TORCH_CHECK(owned->sizes() == gradient.sizes() && owned->scalar_type() == gradient.scalar_type(),
              "guided activation: the gradient is ", gradient.scalar_type(), " ", gradient.sizes(),
              ", and what passes of it ", owned->scalar_type(), " ", owned->sizes());
  return *owned;
}

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
  const Guided relu = {find_operator("relu"), 1, find_plain("relu")->getOperation(), nullptr};
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

bool mc_tape_gate(mc_tape* tape, mc_gate gate, void* context, mc_gate_drop drop, char** error) {
  return medcam::guarded(error,
                         [&] { tape->tape->guidance.rule = medcam::GateRule(gate, context, drop); });
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
