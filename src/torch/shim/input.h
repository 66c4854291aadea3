// What the input of a forward has to be, as far as the graph tells.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <optional>

namespace medcam {

struct InputFacts {
  // From the convolution that the input enters first; 0 where the graph does not tell.
  int64_t channels = 0;
  // With batch and channel axes, from the first step on the input's way that demands one; 0 if none does.
  int64_t rank = 0;
  // The floating point type with which the input meets the first weights on each of its ways; nothing where
  // it meets none.
  std::optional<c10::ScalarType> type;
};

InputFacts input_facts(const torch::jit::Graph& graph, const torch::jit::Module& module);

}  // namespace medcam
