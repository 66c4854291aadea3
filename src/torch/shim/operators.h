// What is known of single operators, and of the values that a module's attributes give to a graph.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <optional>
#include <string>

namespace medcam {

inline const c10::Symbol kTap = c10::Symbol::fromQualString("medcam::tap");
inline const c10::Symbol kTapNorm = c10::Symbol::fromQualString("medcam::tap_norm");
inline const c10::Symbol kScore = c10::Symbol::fromQualString("medcam::score");

// The operator's name without its namespace and without the underscore of the in-place variant; "" for what
// is not of ATen.
std::string base_name(const torch::jit::Node* node);
bool is_convolution(const torch::jit::Node* node);
// Steps that leave the values and the shape of their first input as they are, up to a cast.
bool is_passthrough(const torch::jit::Node* node);
// Steps that leave the scores of a single sample, and those of a batch, in their order, in another shape.
bool reshapes_scores(const torch::jit::Node* node);
// Steps whose output has as many axes as their input.
bool keeps_rank(const torch::jit::Node* node);
// The rank that a step demands of its first input, with batch and channel axes (max_pool3d: 5); 0 if any.
int64_t rank_of_input(const torch::jit::Node* node, const torch::jit::Module& module);
bool is_tensor(const torch::jit::Value* value);

// What a value holds that is the module (the graph's first input) or hangs from it by attributes; nothing
// for other values.
std::optional<c10::IValue> held(const torch::jit::Value* value, const torch::jit::Module& module);
// The tensor that a value holds as a constant or as a parameter or buffer.
std::optional<at::Tensor> parameter(const torch::jit::Value* value, const torch::jit::Module& module);

}  // namespace medcam
