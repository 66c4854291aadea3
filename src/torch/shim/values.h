// What the values of a graph are and hold.
#pragma once

#include <ATen/ATen.h>
#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <optional>

namespace medcam {

bool is_tensor(const torch::jit::Value* value);

// The module itself (the graph's first input) or one of its attributes, if that is what the value is.
std::optional<c10::IValue> held(const torch::jit::Value* value, const torch::jit::Module& module);

// The tensor that a value holds as a constant, or as a parameter or buffer of the module.
std::optional<at::Tensor> parameter(const torch::jit::Value* value, const torch::jit::Module& module);

// Whether a value is a constant 0.
bool is_zero(const torch::jit::Value* value);

// Whether all elements of a constant list of integers (or a single one) are 1; no list, no.
bool all_ones(const torch::jit::Value* value);

}  // namespace medcam
