// Guided backpropagation: activations whose backward can hold back part of the gradient.
#pragma once

#include <ATen/ATen.h>

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "shim.h"

namespace torch::jit {
struct Graph;
}

namespace medcam {

// How the activations of one run are guided.
struct Guidance {
  mc_guide guide = MC_GUIDE_NONE;
  // Whether backwards to come take the guided rule. Shared with the gates, which must not hold the
  // tape itself: it holds activations, and their history holds the gates.
  std::shared_ptr<std::atomic<bool>> on = std::make_shared<std::atomic<bool>>(false);
  // Activations that ran with a gate.
  size_t activations = 0;
};

// The activations of a graph that can be guided: operators and how many of each there are. What is
// a ReLU by its numbers only (clamp, hardtanh and threshold at 0) counts under its own name.
std::map<std::string, size_t> count_activations(torch::jit::Graph& graph);

// A copy of a tapped graph in which the activations are those of the library "medcam", which put a
// gate into the history of what they return. It runs on an input that requires grad, and that is no
// leaf where the graph may write to it.
std::shared_ptr<torch::jit::Graph> guide_graph(torch::jit::Graph& tapped, mc_guide guide);

}  // namespace medcam
