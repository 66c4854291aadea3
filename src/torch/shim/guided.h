// Guided backpropagation: activations whose backward can hold back part of the gradient.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "shim.h"

namespace torch::jit {
struct Graph;
}

namespace medcam {

// The activations of a graph that can be guided: operators and how many of each there are. What is
// a ReLU by its numbers only (clamp, hardtanh and threshold at 0) counts under its own name.
std::map<std::string, size_t> count_activations(torch::jit::Graph& graph);

// A copy of a tapped graph in which the activations are those of the library "medcam", which put a
// gate into the history of what they return. It runs on an input that requires grad, and that is no
// leaf where the graph may write to it.
std::shared_ptr<torch::jit::Graph> guide_graph(torch::jit::Graph& tapped, mc_guide guide);

}  // namespace medcam
