#include "foreign.h"

#include <torch/csrc/jit/ir/constants.h>

#include "operators.h"

namespace medcam {

using namespace torch::jit;

namespace {

bool is_quantized(const Node* node) {
  const std::string name = node->kind().toQualString();
  return name.rfind("quantized::", 0) == 0 || name.rfind("aten::quantize_per_", 0) == 0;
}

void look(const Block* block, ForeignSteps& found) {
  for (const Node* node : block->nodes()) {
    for (const Block* inner : node->blocks()) look(inner, found);
    if (found.quantized.empty() && is_quantized(node)) found.quantized = node->kind().toQualString();
    for (const Value* input : node->inputs()) {
      const auto constant = toIValue(input);
      if (!found.device.empty() || !constant || !constant->isDevice()) continue;
      const c10::Device device = constant->toDevice();
      if (!device.is_cpu()) found.device = device.str();
    }
  }
}

}  // namespace

ForeignSteps foreign_steps(Graph& graph) {
  ForeignSteps found;
  look(graph.block(), found);
  return found;
}

}  // namespace medcam
