// On which axis of a value its channels are.
#pragma once

#include <torch/csrc/jit/ir/ir.h>

#include <unordered_map>

namespace medcam {

enum class Channels {
  kUnknown,
  // (B, C, [D,] H, W), as convolutions have it.
  kFirst,
  // (B, [D,] H, W, C), as transformers have it.
  kLast,
  // A product of matrices, such as attention weights: its axes are not those of an image.
  kNone,
};

// Tells it from the steps around a value: convolutions, pooling, batch, instance and group norm have the
// channels on axis 1; linear layers and the norm of a single axis on the last one.
class ChannelAxes {
 public:
  Channels of(const torch::jit::Value* value);

 private:
  // What the steps that the value comes from, and those that it goes into, say.
  Channels behind(const torch::jit::Value* value);
  Channels ahead(const torch::jit::Value* value);

  std::unordered_map<const torch::jit::Value*, Channels> behind_;
  std::unordered_map<const torch::jit::Value*, Channels> ahead_;
};

}  // namespace medcam
