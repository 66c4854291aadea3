// Steps of a graph that cannot run where others do, or that nothing can be differentiated through.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <string>

namespace medcam {

struct ForeignSteps {
  // The first device that the graph names itself, as tracing writes it down; "" for none but the CPU.
  std::string device;
  // The first operator of quantised tensors, which have no gradient; "" for none.
  std::string quantized;
};

ForeignSteps foreign_steps(torch::jit::Graph& graph);

}  // namespace medcam
