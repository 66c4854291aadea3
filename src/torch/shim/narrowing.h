// A convolution that reads a concatenation of which some parts need no gradient computes that of the others only.
#pragma once

#include <torch/csrc/autograd/edge.h>

#include <cstddef>
#include <vector>

namespace medcam {

// Changes the graph behind `root` so, where nobody wants the gradient of the concatenation as a whole, and lets go
// of what is saved there for nothing. Returns how many convolutions it changed. To be called before each backward
// from `root` to `ends`: the graph stays as it was made, and gives the ends the same gradients.
size_t narrow_convolutions(const torch::autograd::Edge& root,
                           const std::vector<torch::autograd::Edge>& ends);

}  // namespace medcam
