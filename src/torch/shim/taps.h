// Taps: what passes the output of a layer of a graph through the tape.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <string>
#include <vector>

#include "analysis.h"

namespace medcam {

// Puts a tap of this name behind a node, on its first output. `index` finds the tap's facts.
void insert_tap(torch::jit::Node* node, torch::jit::Value* tape, const std::string& name, size_t index);

// Taps the operations of a graph that can be layers, convolutions, norms, activations, pools and sums, where no
// module's tap follows already: for networks without modules. Their names are the operator's and a number, in
// the order of the graph, from 1: conv3d.4, relu.2.
void tap_operations(torch::jit::Graph& graph, const torch::jit::Module& module,
                    torch::jit::Value* tape, std::vector<TapFacts>& taps);

// Whether a convolution leads to another with no tap in between: what it gives is no module's output.
bool has_bare_convolutions(torch::jit::Graph& graph);

}  // namespace medcam
