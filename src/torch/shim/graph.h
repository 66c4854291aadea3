// Rewriting of a TorchScript graph: taps after submodule calls, and what the graph tells.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <memory>
#include <string>
#include <vector>

#include "analysis.h"
#include "foreign.h"
#include "input.h"
#include "outputs.h"
#include "training.h"

namespace medcam {

// A call of a submodule that returns no single tensor, which no tap can follow.
struct Untapped {
  std::string name;
  // What it returns, such as "List[Tensor]".
  std::string returns;
};

// The forward of a module with every submodule call inlined and tapped. Its last input is the tape.
struct TappedGraph {
  std::shared_ptr<torch::jit::Graph> graph;
  std::vector<TapFacts> taps;
  std::vector<Untapped> untapped;
  Returned returned;
  std::string final_activation;
  InputFacts input;
  std::vector<TrainingSteps> training;
  ForeignSteps foreign;
  // See has_bare_convolutions; not told where operations are tapped.
  bool bare_convolutions = false;
};

// The module must be in evaluation mode. Where autocast is on in this thread, its casts are part of the
// graph, as they are part of what libtorch runs. With `operations` they are tapped too, where no module is.
// Throws if forward is not TorchScript code.
TappedGraph tap_graph(const torch::jit::Module& module, const OutputChoice& output, bool operations);

}  // namespace medcam
