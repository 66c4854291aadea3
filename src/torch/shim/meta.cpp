#include "meta.h"

#include <ATen/ATen.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <memory>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace {

using at::IntArrayRef;
using at::Tensor;
using MaybeTensor = std::optional<Tensor>;

// The i-th of a list that may have one element for all axes.
int64_t along(IntArrayRef list, size_t axis, int64_t otherwise) {
  if (list.empty()) return otherwise;
  return list[list.size() == 1 ? 0 : axis];
}

Tensor meta_convolution(const Tensor& input, const Tensor& weight, const MaybeTensor& /*bias*/,
                   IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, bool transposed,
                   IntArrayRef output_padding, int64_t groups) {
  TORCH_CHECK(input.dim() == weight.dim() && input.dim() > 2, "a convolution of other ranks");
  std::vector<int64_t> sizes = {input.size(0),
                                transposed ? weight.size(1) * groups : weight.size(0)};
  for (int64_t axis = 2; axis < input.dim(); ++axis) {
    const auto i = static_cast<size_t>(axis - 2);
    const int64_t reach = along(dilation, i, 1) * (weight.size(axis) - 1);
    const int64_t step = along(stride, i, 1);
    const int64_t pad = 2 * along(padding, i, 0);
    const int64_t extent =
        transposed ? (input.size(axis) - 1) * step - pad + reach + along(output_padding, i, 0) + 1
                   : (input.size(axis) + pad - reach - 1) / step + 1;
    TORCH_CHECK(input.size(axis) + pad > reach || transposed, "a kernel larger than its input");
    TORCH_CHECK(extent > 0, "a convolution to nothing");
    sizes.push_back(extent);
  }
  TORCH_CHECK(input.size(1) == (transposed ? weight.size(0) : weight.size(1) * groups),
              "a convolution of other channels");
  return at::empty(sizes, input.options());
}

Tensor meta_convolution_with_flags(const Tensor& input, const Tensor& weight, const MaybeTensor& bias,
                              IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
                              bool transposed, IntArrayRef output_padding, int64_t groups,
                              bool /*benchmark*/, bool /*deterministic*/, bool /*cudnn_enabled*/,
                              bool /*allow_tf32*/) {
  return meta_convolution(input, weight, bias, stride, padding, dilation, transposed, output_padding,
                     groups);
}

std::tuple<Tensor, Tensor, Tensor> meta_batch_norm(const Tensor& input, const MaybeTensor& /*weight*/,
                                              const MaybeTensor& /*bias*/,
                                              const MaybeTensor& /*mean*/,
                                              const MaybeTensor& /*variance*/, bool training,
                                              double /*momentum*/, double /*epsilon*/) {
  const Tensor statistics = at::empty({training ? input.size(1) : 0}, input.options());
  return {at::empty_like(input), statistics, statistics.clone()};
}

std::tuple<Tensor, Tensor, Tensor> meta_batch_norm_legit(
    const Tensor& input, const MaybeTensor& weight, const MaybeTensor& bias, Tensor& mean,
    Tensor& variance, bool training, double momentum, double epsilon) {
  return meta_batch_norm(input, weight, bias, mean, variance, training, momentum, epsilon);
}

Tensor meta_same(const Tensor& input) { return at::empty_like(input); }

Tensor meta_bool(const Tensor& input) { return at::empty_like(input, input.options().dtype(at::kBool)); }

Tensor& meta_in_place(Tensor& input) { return input; }

Tensor meta_nan_to_num(const Tensor& input, std::optional<double> /*nan*/, std::optional<double> /*high*/,
                       std::optional<double> /*low*/) {
  return at::empty_like(input);
}

Tensor& meta_nan_to_num_in_place(Tensor& input, std::optional<double> /*nan*/,
                                 std::optional<double> /*high*/, std::optional<double> /*low*/) {
  return input;
}

Tensor meta_bool_of_two(const Tensor& first, const Tensor& second) { return at::eq(first, second); }

Tensor meta_hardtanh(const Tensor& input, const at::Scalar& /*least*/, const at::Scalar& /*most*/) {
  return at::empty_like(input);
}

Tensor meta_prelu(const Tensor& input, const Tensor& /*weight*/) { return at::empty_like(input); }

Tensor meta_rrelu(const Tensor& input, Tensor& /*noise*/, const at::Scalar& /*least*/,
                  const at::Scalar& /*most*/, bool /*training*/,
                  std::optional<at::Generator> /*generator*/) {
  return at::empty_like(input);
}

std::tuple<Tensor, Tensor> meta_log_sigmoid(const Tensor& input) {
  return {at::empty_like(input), at::empty({0}, input.options())};
}

// Of two tensors: their sum has the shape and type.
Tensor meta_together(const Tensor& first, const Tensor& second) { return at::add(first, second); }

Tensor meta_rsub(const Tensor& first, const Tensor& second, const at::Scalar& factor) {
  return at::sub(first, second, factor);
}

Tensor meta_where(const Tensor& condition, const Tensor& first, const Tensor& second) {
  return at::add(at::add(first, second), at::empty_like(condition));
}

std::tuple<Tensor, Tensor> meta_max_pool3d(const Tensor& input, IntArrayRef kernel, IntArrayRef stride,
                                      IntArrayRef padding, IntArrayRef dilation, bool ceil_mode) {
  std::vector<int64_t> sizes = input.sizes().vec();
  const size_t first = sizes.size() - 3;
  for (size_t i = 0; i < 3; ++i) {
    const int64_t step = along(stride, i, along(kernel, i, 1));
    const int64_t pad = along(padding, i, 0);
    const int64_t reach = along(dilation, i, 1) * (along(kernel, i, 1) - 1);
    const int64_t room = sizes[first + i] + 2 * pad - reach - 1;
    TORCH_CHECK(room >= 0 || ceil_mode, "a pool larger than its input");
    int64_t extent = (room + (ceil_mode ? step - 1 : 0)) / step + 1;
    // The last window starts inside the input or its padding on the left.
    if (ceil_mode && (extent - 1) * step >= sizes[first + i] + pad) --extent;
    TORCH_CHECK(extent > 0, "a pool to nothing");
    sizes[first + i] = extent;
  }
  return {at::empty(sizes, input.options()), at::empty(sizes, input.options().dtype(at::kLong))};
}

Tensor meta_adaptive_average(const Tensor& input, IntArrayRef output) {
  std::vector<int64_t> sizes = input.sizes().vec();
  std::copy(output.begin(), output.end(), sizes.end() - static_cast<int64_t>(output.size()));
  return at::empty(sizes, input.options());
}

Tensor meta_flip(const Tensor& input, IntArrayRef /*axes*/) { return at::empty_like(input); }

Tensor meta_channel_shuffle(const Tensor& input, int64_t /*groups*/) { return at::empty_like(input); }

Tensor meta_reflection_pad2d(const Tensor& input, IntArrayRef padding) {
  return at::constant_pad_nd(input, padding);
}

Tensor meta_max_unpool2d(const Tensor& input, const Tensor& /*indices*/, IntArrayRef output) {
  return meta_adaptive_average(input, output);
}

Tensor meta_max_unpool3d(const Tensor& input, const Tensor& /*indices*/, IntArrayRef output,
                         IntArrayRef /*stride*/, IntArrayRef /*padding*/) {
  return meta_adaptive_average(input, output);
}

Tensor meta_grid_sampler(const Tensor& input, const Tensor& grid, int64_t /*interpolation*/,
                         int64_t /*padding*/, bool /*align_corners*/) {
  std::vector<int64_t> sizes = {input.size(0), input.size(1)};
  for (int64_t axis = 1; axis + 1 < grid.dim(); ++axis) sizes.push_back(grid.size(axis));
  return at::empty(sizes, input.options());
}

Tensor meta_index_select(const Tensor& input, int64_t axis, const Tensor& index) {
  std::vector<int64_t> sizes = input.sizes().vec();
  if (!sizes.empty()) sizes.at(static_cast<size_t>(at::maybe_wrap_dim(axis, input.dim()))) = index.numel();
  return at::empty(sizes, input.options());
}

std::tuple<Tensor, Tensor> meta_weight_norm(const Tensor& direction, const Tensor& length,
                                            int64_t /*axis*/) {
  return {at::empty_like(direction), at::empty_like(length)};
}

Tensor meta_to_one(const Tensor& input) { return at::empty({}, input.options()); }

Tensor meta_roll(const Tensor& input, IntArrayRef /*shifts*/, IntArrayRef /*axes*/) {
  return at::empty_like(input);
}

// Of the axes over which a statistic is taken: all if none is named.
Tensor meta_statistic(const Tensor& input, at::OptionalIntArrayRef axes,
                 const std::optional<at::Scalar>& /*correction*/, bool keep_axes) {
  return at::empty_like(at::sum(input, axes.value_or(IntArrayRef{}), keep_axes));
}

std::tuple<Tensor, Tensor> meta_statistics(const Tensor& input, at::OptionalIntArrayRef axes,
                                           const std::optional<at::Scalar>& correction,
                                           bool keep_axes) {
  return {meta_statistic(input, axes, correction, keep_axes),
          meta_statistic(input, axes, correction, keep_axes)};
}

// A rule, unless somebody has brought one: PyTorch does in a process that runs Python too.
template <typename F>
void add(torch::Library& library, const char* name, const char* overload, F&& rule) {
  const auto schema = c10::Dispatcher::singleton().findSchema({std::string("aten::") + name, overload});
  if (!schema || schema->hasKernelForDispatchKey(c10::DispatchKey::Meta)) return;
  const std::string full = *overload ? std::string(name) + "." + overload : name;
  library.impl(full.c_str(), std::forward<F>(rule));
}

}  // namespace

namespace medcam {

void declare_shape_rules() {
  // Never taken back: libtorch may be gone when the process ends.
  static const auto* library = [] {
    auto made = std::make_unique<torch::Library>(torch::Library::IMPL, "aten", c10::DispatchKey::Meta,
                                                 __FILE__, __LINE__);
    const auto rule = [&](const char* name, const char* overload, auto&& of) {
      add(*made, name, overload, of);
    };
    rule("convolution", "", meta_convolution);
    rule("_convolution", "", meta_convolution_with_flags);
    rule("native_batch_norm", "", meta_batch_norm);
    rule("_native_batch_norm_legit", "", meta_batch_norm_legit);
    rule("relu", "", meta_same);
    rule("abs", "", meta_same);
    rule("abs_", "", meta_in_place);
    rule("nan_to_num", "", meta_nan_to_num);
    rule("nan_to_num_", "", meta_nan_to_num_in_place);
    rule("logical_not", "", meta_bool);
    rule("logical_and", "", meta_bool_of_two);
    rule("logical_or", "", meta_bool_of_two);
    rule("hardswish", "", meta_same);
    rule("isnan", "", meta_bool);
    rule("hardtanh", "", meta_hardtanh);
    rule("_prelu_kernel", "", meta_prelu);
    rule("rrelu_with_noise", "", meta_rrelu);
    rule("log_sigmoid_forward", "", meta_log_sigmoid);
    rule("floor_divide", "", meta_together);
    rule("rsub", "Tensor", meta_rsub);
    rule("where", "self", meta_where);
    rule("max_pool3d_with_indices", "", meta_max_pool3d);
    rule("max_unpool2d", "", meta_max_unpool2d);
    rule("max_unpool3d", "", meta_max_unpool3d);
    rule("_adaptive_avg_pool2d", "", meta_adaptive_average);
    rule("_adaptive_avg_pool3d", "", meta_adaptive_average);
    rule("reflection_pad2d", "", meta_reflection_pad2d);
    rule("grid_sampler_2d", "", meta_grid_sampler);
    rule("grid_sampler_3d", "", meta_grid_sampler);
    rule("index_select", "", meta_index_select);
    rule("flip", "", meta_flip);
    rule("roll", "", meta_roll);
    rule("channel_shuffle", "", meta_channel_shuffle);
    rule("_weight_norm_interface", "", meta_weight_norm);
    rule("max", "", meta_to_one);
    rule("min", "", meta_to_one);
    rule("std", "correction", meta_statistic);
    rule("var", "correction", meta_statistic);
    rule("std_mean", "correction", meta_statistics);
    rule("var_mean", "correction", meta_statistics);
    return made.release();
  }();
  static_cast<void>(library);
}

}  // namespace medcam
