// Rules for the shapes of operators that libtorch computes on the CPU and on CUDA, but not on the meta device,
// where tensors have no values: PyTorch has these rules in Python.
#pragma once

namespace medcam {

void declare_shape_rules();

}  // namespace medcam
