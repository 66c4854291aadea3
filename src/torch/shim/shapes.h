// The shapes that a forward would show, found without computing it.
#pragma once

#include <ATen/ATen.h>
#include <torch/script.h>

#include "graph.h"
#include "tape.h"

namespace medcam {

// Runs a tapped graph on an input of this shape and type with all tensors on the meta device, which have a shape
// and a type but no values, and shows the tape what a forward would show it. Returns what the forward would
// return. Throws where a step needs a value (a branch on data) or has no rule for shapes.
c10::IValue run_shapes(const torch::jit::Module& module, const TappedGraph& tapped,
                       std::vector<c10::IValue> defaults, const at::Tensor& like,
                       const c10::intrusive_ptr<Tape>& tape);

}  // namespace medcam
