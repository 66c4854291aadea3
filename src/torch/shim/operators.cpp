#include "operators.h"

#include <unordered_map>

namespace medcam {

using torch::jit::Node;

namespace {

constexpr auto kKept = Axes::kKept;
constexpr auto kSame = Voxels::kSame;
constexpr auto kGated = Voxels::kGated;
constexpr auto kMoved = Voxels::kMoved;
constexpr auto kUnknown = Voxels::kUnknown;
constexpr unsigned kPasses = kPassesThrough | kMixesAlike;
constexpr unsigned kRelu = kLikeRelu | kFlatBelowZero | kIsLayer;
constexpr unsigned kOther = kOtherActivation | kIsLayer;
constexpr unsigned kImageLayer = kChannelsFirst | kIsLayer;
constexpr unsigned kResizes = kImageLayer | kRegrids;

constexpr Operator kTable[] = {
    // What passes its input on.
    {"medcam::tap", kKept, kSame, kPasses},
    {"to", kKept, kSame, kPasses},
    {"type_as", kKept, kSame, kPasses},
    {"_autocast_to_reduced_precision", kKept, kSame, kPasses},
    {"_autocast_to_full_precision", kKept, kSame, kPasses},
    {"contiguous", kKept, kSame, kPasses},
    {"clone", kKept, kSame, kPasses},
    {"alias", kKept, kSame, kPasses},
    {"detach", kKept, kSame, kPasses | kStopsGradient},
    // Those of evaluation are left out of a graph; the others draw another mask for each voxel.
    {"dropout", kKept, kSame, kPassesThrough, Family::kDropout},
    {"feature_dropout", kKept, kSame, kPassesThrough, Family::kDropout},
    {"alpha_dropout", kKept, kSame, kPassesThrough, Family::kDropout},
    {"feature_alpha_dropout", kKept, kSame, kPassesThrough, Family::kDropout},

    // Activations.
    {"relu", kKept, kSame, kRelu},
    {"relu6", kKept, kSame, kRelu},
    {"hardtanh", kKept, kSame, kRelu, Family::kOther, /*zeros=*/1},
    {"threshold", kKept, kSame, kRelu, Family::kOther, /*zeros=*/2},
    // The derivative of these is 1 at 0.
    {"clamp", kKept, kSame, kLikeRelu, Family::kOther, /*zeros=*/1},
    {"clamp_min", kKept, kSame, kLikeRelu, Family::kOther, /*zeros=*/1},
    {"leaky_relu", kKept, kSame, kOther},
    {"prelu", kKept, kSame, kOther},
    {"rrelu", kKept, kSame, kOther},
    {"elu", kKept, kSame, kOther},
    {"selu", kKept, kSame, kOther},
    {"celu", kKept, kSame, kOther},
    {"gelu", kKept, kSame, kOther},
    {"silu", kKept, kSame, kOther},
    {"mish", kKept, kSame, kOther},
    {"hardswish", kKept, kSame, kOther},
    // These saturate at both ends, or not at 0: no rule of guided backpropagation is known for them.
    {"hardsigmoid", kKept, kSame, kIsLayer},
    {"tanh", kKept, kSame, kIsLayer},
    {"softplus", kKept, kSame, kIsLayer},
    {"clamp_max", kKept, kSame},
    {"sigmoid", kKept, kSame, kEndsInProbabilities | kIsLayer},
    {"softmax", kKept, kSame, kEndsInProbabilities | kIsLayer, Family::kAlongAxis},
    {"_softmax", kKept, kSame, kEndsInProbabilities | kIsLayer, Family::kAlongAxis},
    {"log_softmax", kKept, kSame, kEndsInProbabilities | kIsLayer, Family::kAlongAxis},

    // Arithmetic on each element.
    {"add", kKept, kSame, kMixesAlike | kIsLayer},
    {"sub", kKept, kSame, kMixesAlike},
    {"rsub", kKept, kSame, kMixesAlike},
    {"neg", kKept, kSame, kMixesAlike},
    {"mul", kKept, kGated, kMixesAlike},
    {"div", kKept, kGated, kMixesAlike},
    {"pow", kKept, kGated},
    {"minimum", kKept, kGated},
    {"maximum", kKept, kGated},
    {"where", kKept, kGated},
    {"masked_fill", kKept, kGated},
    {"sqrt", kKept, kSame},
    {"rsqrt", kKept, kSame},
    {"square", kKept, kSame},
    {"exp", kKept, kSame},
    {"log", kKept, kSame},
    {"log1p", kKept, kSame},
    {"abs", kKept, kSame},
    {"reciprocal", kKept, kSame},
    {"nan_to_num", kKept, kSame},

    // What has no derivative, or none but 0.
    {"sign", kKept, kSame, kStopsGradient},
    {"round", kKept, kSame, kStopsGradient},
    {"floor", kKept, kSame, kStopsGradient},
    {"ceil", kKept, kSame, kStopsGradient},
    {"eq", kKept, kSame, kStopsGradient},
    {"ne", kKept, kSame, kStopsGradient},
    {"lt", kKept, kSame, kStopsGradient},
    {"le", kKept, kSame, kStopsGradient},
    {"gt", kKept, kSame, kStopsGradient},
    {"ge", kKept, kSame, kStopsGradient},
    {"isnan", kKept, kSame, kStopsGradient},
    {"isfinite", kKept, kSame, kStopsGradient},
    {"logical_not", kKept, kSame, kStopsGradient},
    {"logical_and", kKept, kSame, kStopsGradient},
    {"logical_or", kKept, kSame, kStopsGradient},
    {"argmax", Axes::kUnknown, kUnknown, kStopsGradient},
    {"argmin", Axes::kUnknown, kUnknown, kStopsGradient},
    {"argsort", kKept, kUnknown, kStopsGradient},

    // What arranges elements.
    {"prim::ListConstruct", kKept, kSame, kMixesAlike},
    {"cat", kKept, kSame, kMixesAlike | kIsLayer, Family::kAlongAxis},
    {"pad", kKept, kMoved, kRegrids},
    {"constant_pad_nd", kKept, kMoved, kRegrids},
    {"reflection_pad1d", kKept, kMoved, kRegrids},
    {"reflection_pad2d", kKept, kMoved, kRegrids},
    {"reflection_pad3d", kKept, kMoved, kRegrids},
    {"replication_pad1d", kKept, kMoved, kRegrids},
    {"replication_pad2d", kKept, kMoved, kRegrids},
    {"replication_pad3d", kKept, kMoved, kRegrids},
    {"roll", kKept, kMoved},
    {"flip", kKept, kMoved},
    {"slice", kKept, kMoved, kRegrids, Family::kSlice},
    {"narrow", kKept, kMoved, kRegrids, Family::kSlice},
    {"transpose", Axes::kReordered},
    {"permute", Axes::kReordered},
    {"squeeze", Axes::kReshaped, kUnknown, kMixesAlike},
    {"unsqueeze", Axes::kReshaped, kUnknown, kMixesAlike},
    {"view", Axes::kReshaped},
    {"reshape", Axes::kReshaped},
    {"flatten", Axes::kReshaped},
    {"select", Axes::kUnknown, kUnknown, 0, Family::kSelect},

    // Norms.
    {"batch_norm", kKept, kSame, kImageLayer | kMixesAlike, Family::kBatchNorm},
    {"native_batch_norm", kKept, kSame, kImageLayer | kMixesAlike, Family::kBatchNorm},
    {"_native_batch_norm_legit", kKept, kSame, kImageLayer | kMixesAlike, Family::kBatchNorm},
    {"_batch_norm_impl_index", kKept, kSame, kImageLayer | kMixesAlike, Family::kBatchNorm},
    {"instance_norm", kKept, kUnknown, kImageLayer, Family::kInstanceNorm},
    {"group_norm", kKept, kUnknown, kImageLayer},
    {"layer_norm", kKept, kUnknown, kIsLayer, Family::kLayerNorm},

    // Weighted sums.
    {"conv1d", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"conv2d", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"conv3d", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"conv_transpose1d", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"conv_transpose2d", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"conv_transpose3d", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"_convolution", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"convolution", kKept, kUnknown, kImageLayer, Family::kConvolution},
    {"linear", kKept, kUnknown, 0, Family::kLinear},
    {"matmul", Axes::kUnknown, kUnknown, 0, Family::kProduct},
    {"bmm", Axes::kUnknown, kUnknown, 0, Family::kProduct},
    {"baddbmm", Axes::kUnknown, kUnknown, 0, Family::kProduct},
    {"mm", Axes::kUnknown, kUnknown, 0, Family::kFlatProduct},
    {"addmm", Axes::kUnknown, kUnknown, 0, Family::kFlatProduct},
    {"einsum", Axes::kUnknown, kUnknown, 0, Family::kEinsum},

    // What makes the grid coarser or finer.
    {"max_pool1d", kKept, kUnknown, kImageLayer},
    {"max_pool2d", kKept, kUnknown, kImageLayer},
    {"max_pool3d", kKept, kUnknown, kImageLayer},
    {"max_pool1d_with_indices", kKept, kUnknown, kImageLayer},
    {"max_pool2d_with_indices", kKept, kUnknown, kImageLayer},
    {"max_pool3d_with_indices", kKept, kUnknown, kImageLayer},
    {"avg_pool1d", kKept, kMoved, kImageLayer},
    {"avg_pool2d", kKept, kMoved, kImageLayer},
    {"avg_pool3d", kKept, kMoved, kImageLayer},
    {"adaptive_max_pool1d", kKept, kUnknown, kImageLayer},
    {"adaptive_max_pool2d", kKept, kUnknown, kImageLayer},
    {"adaptive_max_pool3d", kKept, kUnknown, kImageLayer},
    {"adaptive_avg_pool1d", kKept, kMoved, kImageLayer},
    {"adaptive_avg_pool2d", kKept, kMoved, kImageLayer},
    {"adaptive_avg_pool3d", kKept, kMoved, kImageLayer},
    {"_adaptive_avg_pool2d", kKept, kMoved, kImageLayer},
    {"_adaptive_avg_pool3d", kKept, kMoved, kImageLayer},
    {"fractional_max_pool2d", kKept, kUnknown, kImageLayer},
    {"fractional_max_pool3d", kKept, kUnknown, kImageLayer},
    {"pixel_shuffle", kKept, kUnknown, kChannelsFirst},
    {"upsample_nearest1d", kKept, kMoved, kResizes},
    {"upsample_nearest2d", kKept, kMoved, kResizes},
    {"upsample_nearest3d", kKept, kMoved, kResizes},
    {"_upsample_nearest_exact1d", kKept, kMoved, kResizes},
    {"_upsample_nearest_exact2d", kKept, kMoved, kResizes},
    {"_upsample_nearest_exact3d", kKept, kMoved, kResizes},
    {"upsample_linear1d", kKept, kMoved, kResizes},
    {"upsample_bilinear2d", kKept, kMoved, kResizes},
    {"_upsample_bilinear2d_aa", kKept, kMoved, kResizes},
    {"upsample_trilinear3d", kKept, kMoved, kResizes},
    {"upsample_bicubic2d", kKept, kMoved, kResizes},
    {"_upsample_bicubic2d_aa", kKept, kMoved, kResizes},
    {"__interpolate", kKept, kMoved, kResizes},
};

}  // namespace

c10::ArrayRef<Operator> operators() { return kTable; }

const Operator& find_operator(const std::string& name) {
  static const std::unordered_map<std::string, const Operator*> rows = [] {
    std::unordered_map<std::string, const Operator*> by_name;
    for (const Operator& row : operators()) by_name.emplace(row.name, &row);
    return by_name;
  }();
  static const Operator unknown = {""};
  const auto row = rows.find(name);
  return row == rows.end() ? unknown : *row->second;
}

std::string base_name(const Node* node) {
  if (!node->kind().is_aten()) return "";
  std::string name = node->kind().toUnqualString();
  if (!name.empty() && name.back() == '_') name.pop_back();
  return name;
}

const Operator& operator_of(const Node* node) {
  return find_operator(node->kind().is_aten() ? base_name(node) : node->kind().toQualString());
}

}  // namespace medcam

extern "C" {

size_t mc_operator_count(void) { return medcam::operators().size(); }

const char* mc_operator_name(size_t index) { return medcam::operators()[index].name; }

bool mc_operator_is_like_relu(const char* name) {
  try {
    return medcam::find_operator(name).has(medcam::kLikeRelu);
  } catch (...) {
    // Memory is out.
    return false;
  }
}

}  // extern "C"
