// A loaded TorchScript module: its own forward, and the tapped copy of it.
#include <ATen/autocast_mode.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/script.h>

#include <map>
#include <tuple>
#include <unordered_set>
#include <utility>

#include "boundary.h"
#include "graph.h"
#include "guided.h"
#include "newer.h"
#include "shapes.h"
#include "tape.h"

namespace {

// Autocast as it is on in this thread, on the CPU and on CUDA: whether, and to which type.
using Autocast = std::tuple<bool, c10::ScalarType, bool, c10::ScalarType>;

Autocast current_autocast() {
  using namespace at::autocast;
  return {is_autocast_enabled(at::kCPU), get_autocast_dtype(at::kCPU),
          is_autocast_enabled(at::kCUDA), get_autocast_dtype(at::kCUDA)};
}

// A tapped graph that runs, plain and guided.
struct Tapped {
  medcam::TappedGraph graph;
  // Made when first run.
  std::map<mc_guide, torch::jit::GraphExecutor> executors;
};

}  // namespace

struct mc_module {
  torch::jit::Module module;
  // By the autocast under which they were made, which is part of them.
  std::map<Autocast, Tapped> tapped;
  // Of the first of them.
  medcam::TappedGraph* facts = nullptr;
  std::vector<std::pair<std::string, size_t>> activations;
  std::vector<c10::IValue> defaults;
  std::string input_type;
  std::vector<std::string> names;
  medcam::OutputChoice output;
  // Whether operations are tapped too, where no module is.
  bool operations = false;
};

namespace {

// The inputs of forward beside self and the first; what has no default cannot be left out.
std::vector<c10::IValue> default_inputs(const torch::jit::Module& module) {
  const auto& arguments = module.get_method("forward").function().getSchema().arguments();
  TORCH_CHECK(arguments.size() >= 2, "forward takes no input");
  const auto& type = arguments[1].type();
  TORCH_CHECK(c10::TensorType::get()->isSubtypeOf(*type), "forward takes ", type->annotation_str(),
              " as its input '", arguments[1].name(), "', and maps are made for models that take a "
              "tensor. Wrap the model in a module that takes one and makes of it what this one "
              "takes, and export that");
  std::vector<c10::IValue> defaults;
  std::string names = arguments[1].name();
  size_t required = 1;
  for (size_t i = 2; i < arguments.size(); ++i) {
    if (arguments[i].default_value()) {
      defaults.push_back(*arguments[i].default_value());
    } else {
      names += ", " + arguments[i].name();
      ++required;
    }
  }
  TORCH_CHECK(required == 1, "forward takes ", required, " inputs (", names,
              "); maps are made for models with one. Wrap the model in a module that sets the "
              "others, and export that");
  return defaults;
}

torch::jit::GraphExecutor executor_of(const std::shared_ptr<torch::jit::Graph>& graph) {
  return torch::jit::GraphExecutor(graph, "medcam", torch::jit::SIMPLE);
}

// The tapped graph for the autocast of this thread.
Tapped& tapped_now(mc_module& module) {
  const Autocast autocast = current_autocast();
  const auto known = module.tapped.find(autocast);
  if (known != module.tapped.end()) return known->second;
  return module.tapped[autocast] = {
             medcam::tap_graph(module.module, module.output, module.operations), {}};
}

torch::jit::GraphExecutor& executor_for(Tapped& tapped, mc_guide guide) {
  const auto known = tapped.executors.find(guide);
  if (known != tapped.executors.end()) return known->second;
  torch::jit::Graph& graph = *tapped.graph.graph;
  return tapped.executors[guide] =
             executor_of(guide == MC_GUIDE_NONE ? graph.copy() : medcam::guide_graph(graph, guide));
}

// As PyTorch's named_modules: each module once, by its first name, without the whole.
std::vector<std::string> submodule_names(const torch::jit::Module& module) {
  std::unordered_set<const void*> seen = {module._ivalue().get()};
  std::vector<std::string> names;
  for (const auto& named : module.named_modules()) {
    if (seen.insert(named.value._ivalue().get()).second) {
      names.push_back(named.name);
    }
  }
  return names;
}

void tap(mc_module& module) {
  module.tapped.clear();
  module.facts = &tapped_now(module).graph;
  const auto type = module.facts->input.type;
  module.input_type = type ? c10::toString(*type) : "";
  const auto activations = medcam::count_activations(*module.facts->graph);
  module.activations.assign(activations.begin(), activations.end());
}

}  // namespace

extern "C" {

bool mc_module_load(const char* path, int64_t cuda_index, mc_module** module, char** error) {
  return medcam::guarded(error, [&] {
    medcam::declare_newer_operators();
    const c10::Device device =
        cuda_index < 0 ? c10::Device(c10::kCPU)
                       : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(cuda_index));
    auto loaded = std::make_unique<mc_module>();
    loaded->module = torch::jit::load(path, device);
    loaded->module.eval();
    for (at::Tensor parameter : loaded->module.parameters()) parameter.set_requires_grad(false);
    loaded->defaults = default_inputs(loaded->module);
    loaded->names = submodule_names(loaded->module);
    tap(*loaded);
    *module = loaded.release();
  });
}

void mc_module_free(mc_module* module) { delete module; }

bool mc_module_choose_output(mc_module* module, int64_t index, const char* name, char** error) {
  return medcam::guarded(error, [&] {
    module->output = {index, name};
    tap(*module);
  });
}

bool mc_module_tap_operations(mc_module* module, bool on, char** error) {
  return medcam::guarded(error, [&] {
    module->operations = on;
    tap(*module);
  });
}

bool mc_module_convert(mc_module* module, char type, char** error) {
  return medcam::guarded(error, [&] {
    module->module.to(type == 'b' ? c10::kBFloat16 : type == 'h' ? c10::kHalf : c10::kFloat);
    tap(*module);
  });
}

bool mc_module_forward(mc_module* module, const mc_tensor* input, mc_tensor** output,
                       char** error) {
  return medcam::guarded(error, [&] {
    *output = medcam::wrap(
        medcam::pick(module->module.forward({medcam::unwrap(input)}), module->output));
  });
}

bool mc_module_forward_tapped(mc_module* module, const mc_tensor* input, mc_tape* tape,
                              mc_tensor** output, char** error) {
  return medcam::guarded(error, [&] {
    // Optimisation passes would move and fuse what the taps stand between.
    const torch::jit::GraphOptimizerEnabledGuard off(false);
    torch::jit::Stack stack = {module->module._ivalue(), medcam::unwrap(input)};
    stack.insert(stack.end(), module->defaults.begin(), module->defaults.end());
    stack.emplace_back(tape->tape);
    Tapped& tapped = tapped_now(*module);
    executor_for(tapped, tape->tape->guidance.guide).run(stack);
    *output = medcam::wrap(tapped.graph.returned.choice_only
                               ? stack.back().toTensor()
                               : medcam::pick(stack.back(), module->output));
  });
}

bool mc_module_shapes(mc_module* module, const mc_tensor* like, mc_tape* tape, mc_tensor** output,
                      char** error) {
  return medcam::guarded(error, [&] {
    const auto& tapped = tapped_now(*module).graph;
    const c10::IValue returned = medcam::run_shapes(module->module, tapped, module->defaults,
                                                    medcam::unwrap(like), tape->tape);
    *output = medcam::wrap(tapped.returned.choice_only ? returned.toTensor()
                                                       : medcam::pick(returned, module->output));
  });
}

mc_facts mc_module_facts(const mc_module* module) {
  const medcam::TappedGraph& facts = *module->facts;
  const auto& outputs = facts.returned.tensors;
  return {facts.input.channels,
          facts.input.rank,
          module->input_type.c_str(),
          facts.final_activation.c_str(),
          facts.foreign.device.c_str(),
          facts.foreign.quantized.c_str(),
          facts.bare_convolutions,
          outputs ? static_cast<int64_t>(*outputs) : -1,
          facts.taps.size(),
          facts.untapped.size(),
          module->activations.size(),
          facts.training.size(),
          module->names.size()};
}

const char* mc_module_name(const mc_module* module, size_t index) {
  return module->names[index].c_str();
}

mc_tap mc_module_tap(const mc_module* module, size_t index) {
  const medcam::TapFacts& tap = module->facts->taps[index];
  return {tap.name.c_str(),
          tap.type.c_str(),
          tap.reaches_score,
          tap.follows_score,
          tap.redraws_score,
          tap.weights_cancel,
          tap.channels_last,
          tap.is_product,
          tap.regrids,
          tap.embeds_patches,
          tap.run.c_str(),
          tap.sources ? static_cast<int64_t>(tap.sources->size()) : -1};
}

const char* mc_module_tap_source(const mc_module* module, size_t tap, size_t index) {
  return (*module->facts->taps[tap].sources)[index].c_str();
}

mc_untapped mc_module_untapped(const mc_module* module, size_t index) {
  const medcam::Untapped& untapped = module->facts->untapped[index];
  return {untapped.name.c_str(), untapped.returns.c_str()};
}

mc_activation mc_module_activation(const mc_module* module, size_t index) {
  const auto& [name, count] = module->activations[index];
  return {name.c_str(), count};
}

mc_training mc_module_training(const mc_module* module, size_t index) {
  const medcam::TrainingSteps& steps = module->facts->training[index];
  return {steps.name.c_str(), steps.count, steps.is_random};
}

}  // extern "C"
