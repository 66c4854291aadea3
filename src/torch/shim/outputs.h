// Models that return several tensors: which of them is explained.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

namespace medcam {

// One of the tensors in what forward returns: tuples, lists and dicts, nested at will, are gone through
// depth first. By number (from 0, what is no tensor counted too), by name (the keys of dicts, the fields
// of named tuples and the places in the rest, joined by dots), or else the first tensor.
struct OutputChoice {
  int64_t index = -1;
  std::string name;
};

// The chosen tensor of what a run returned; the error lists what there is.
at::Tensor pick(const c10::IValue& returned, const OutputChoice& choice);

// What the graph tells of the values that forward returns.
struct Returned {
  // Whether the graph now returns the chosen tensor alone. False where the graph does not tell which value
  // that is (a list built in a loop); then it is for pick to find.
  bool choice_only;
  // How many tensors forward returned before; nothing where the graph does not tell.
  std::optional<size_t> tensors;
};

// Makes the chosen tensor the only output of the graph, if it can.
Returned keep_only(const std::shared_ptr<torch::jit::Graph>& graph, const OutputChoice& choice);

}  // namespace medcam
