// Steps that a graph takes as in training, whatever mode its module is in.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <string>
#include <vector>

namespace medcam {

// An operator that acts as in training, and how many of it the graph has.
struct TrainingSteps {
  std::string name;
  size_t count;
  // Whether it draws random numbers; else it normalises with the statistics of its batch.
  bool is_random;
};

std::vector<TrainingSteps> training_steps(torch::jit::Graph& graph, const torch::jit::Module& module);

}  // namespace medcam
