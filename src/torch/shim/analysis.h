// What a tapped graph tells without being run.
#pragma once

#include <torch/csrc/jit/ir/ir.h>
#include <torch/script.h>

#include <functional>
#include <optional>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "channels.h"

namespace medcam {

// One tap in the graph, and what the graph says of the layer that it follows.
struct TapFacts {
  std::string name;
  std::string type;
  bool in_graph = false;
  bool reaches_score = false;
  bool follows_score = false;
  bool redraws_score = false;
  bool weights_cancel = false;
  bool channels_last = false;
  bool is_product = false;
  bool regrids = false;
  bool embeds_patches = false;
  // Which of its layer's runs it is, as NAME#k; "" where the graph does not tell.
  std::string run = {};
  // The runs of layers from which alone it comes, likewise; nothing where it comes from the input too, or where the graph
  // does not tell. What comes from a single voxel, as behind a global pool, comes from no layer.
  std::optional<std::vector<std::string>> sources = std::nullopt;
};

class GraphAnalysis {
 public:
  GraphAnalysis(torch::jit::Graph& graph, const torch::jit::Module& module);

  // The value before a softmax or sigmoid that ends the graph; the output itself without one.
  torch::jit::Value* logits() const { return logits_; }
  const std::string& final_activation() const { return final_activation_; }

  // Fills in, for every tap in the graph, what the graph says of it; drops those not in it.
  void judge(std::vector<TapFacts>& taps) const;

 private:
  using Memo = std::unordered_map<const torch::jit::Value*, bool>;
  // What a use of a value is on the way to a goal: the goal, a step towards it, or neither.
  enum class Step { kArrived, kOnward, kElsewhere };
  using Judge = std::function<Step(const torch::jit::Use&)>;
  // Whether every way from the value to the score comes by the goal, over nothing but steps.
  bool every_way(const torch::jit::Value* value, Memo& memo, const Judge& judge) const;

  void find_logits();
  void find_ancestors();
  bool redraws(const torch::jit::Value* value) const;
  bool cancels(const torch::jit::Value* value) const;
  bool is_pointwise(const torch::jit::Node* node) const;
  bool mixes_alike(const torch::jit::Node* node) const;
  bool has_pointwise_kernel(const torch::jit::Node* convolution) const;
  bool has_one_tensor(const torch::jit::Node* node) const;
  bool is_along_image_axis(const torch::jit::Node* node) const;

  torch::jit::Graph& graph_;
  const torch::jit::Module& module_;
  torch::jit::Value* logits_ = nullptr;
  std::string final_activation_;
  // What lies between the logits and the output.
  std::unordered_set<const torch::jit::Value*> tail_;
  std::unordered_set<const torch::jit::Value*> ancestors_;
  mutable Memo redraws_;
  mutable Memo cancels_;
  mutable ChannelAxes channels_;
};

}  // namespace medcam
