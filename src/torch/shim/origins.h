// Where the activations of a graph come from: whether a layer shows an image of its own.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

namespace medcam {

class Origins {
 public:
  Origins(const torch::jit::Graph& graph, const torch::jit::Module& module);

  // Whether a value only pads, crops or resizes another, whatever pointwise steps come after that.
  bool regrids(const torch::jit::Value* value) const;
  // Whether it is the input cut into patches that do not overlap, each by the same convolution, and normalised.
  bool embeds_patches(const torch::jit::Value* value) const;
  // The run of a layer that a tap is, as NAME#k; "" where the graph does not tell.
  std::string run(const torch::jit::Node* tap) const;
  // The runs of layers next behind a value, likewise; nothing where the input is too, or where the graph does not
  // tell. None where it comes from a single voxel alone: a global pool.
  std::optional<std::vector<std::string>> sources(const torch::jit::Value* value) const;

 private:
  const torch::jit::Value* input_;
  const torch::jit::Module& module_;
  std::unordered_map<const torch::jit::Node*, std::string> runs_;
};

}  // namespace medcam
