// The table of operators: what each is and does, for every analysis of a graph. An operator that is not in it
// is one of which nothing is known.
#pragma once

#include <c10/util/ArrayRef.h>
#include <torch/csrc/jit/ir/ir.h>

#include <string>

#include "shim.h"

namespace medcam {

inline const c10::Symbol kTap = c10::Symbol::fromQualString("medcam::tap");
inline const c10::Symbol kTapNorm = c10::Symbol::fromQualString("medcam::tap_norm");
inline const c10::Symbol kScore = c10::Symbol::fromQualString("medcam::score");

// What an operator is, where an analysis reads its arguments.
enum class Family {
  kOther,
  kDropout,
  kConvolution,
  kBatchNorm,
  kInstanceNorm,
  kLayerNorm,
  kLinear,
  // A product of matrices in a batch: of two activations, as in attention, or with weights.
  kProduct,
  // A product of two plain matrices, which hold no image.
  kFlatProduct,
  kEinsum,
  // Computes along the axis that its second argument names.
  kAlongAxis,
  // Takes one place of an axis, and drops that axis.
  kSelect,
  // Takes places of an axis that lie side by side, or at steps.
  kSlice,
};

// The axes of the output, told by those of the tensors that go in.
enum class Axes {
  kUnknown,
  // The same axes in the same order; extents may change.
  kKept,
  // The same axes in another order.
  kReordered,
  // Other axes for the same elements in the same order.
  kReshaped,
};

// What a voxel of the output depends on.
enum class Voxels {
  kUnknown,
  // On the same voxel of each input alone, whatever its channels.
  kSame,
  // As kSame, but where a second activation goes in, it scales the first one's gradient, and may have seen the
  // whole image: pointwise only where a single activation goes in.
  kGated,
  // On voxels at other places, of the same channel and with the same weights in every channel: resized, padded,
  // cropped, moved or averaged.
  kMoved,
};

// Further properties, each a bit of Operator::properties.
enum Property : unsigned {
  // The output has the values of the first input, up to a cast.
  kPassesThrough = 1u << 0,
  // No gradient comes from the output to the inputs.
  kStopsGradient = 1u << 1,
  // The output is a weighted sum of the channels of one voxel, with the same weights at every voxel.
  kMixesAlike = 1u << 2,
  // Turns scores into probabilities: the score is taken in front of it where it ends the graph.
  kEndsInProbabilities = 1u << 3,
  // The channels of its first input are on axis 1.
  kChannelsFirst = 1u << 4,
  // ReLU, or equal to it under the condition of `zeros`; Guide::Relu guides it.
  kLikeRelu = 1u << 5,
  // Another activation, which Guide::All guides.
  kOtherActivation = 1u << 6,
  // Its derivative is 0 at every input that is not positive.
  kFlatBelowZero = 1u << 7,
  // Pads, crops or resizes: the output shows no more of the image than the input does.
  kRegrids = 1u << 8,
  // A layer of its own in networks without modules.
  kIsLayer = 1u << 9,
};

struct Operator {
  // Without the namespace `aten` and without the underscore of the in-place variant.
  const char* name;
  Axes axes = Axes::kUnknown;
  Voxels voxels = Voxels::kUnknown;
  unsigned properties = 0;
  Family family = Family::kOther;
  // How many arguments after the first have to be 0 for a kLikeRelu operator to be a ReLU.
  size_t zeros = 0;

  bool has(Property property) const { return (properties & property) != 0; }
};

// All rows.
c10::ArrayRef<Operator> operators();
// The row of a name, or a row of unknowns.
const Operator& find_operator(const std::string& name);
const Operator& operator_of(const torch::jit::Node* node);

// The operator's name as the table has it; "" for what is not of ATen.
std::string base_name(const torch::jit::Node* node);

}  // namespace medcam
