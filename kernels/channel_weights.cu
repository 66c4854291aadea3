// Grad-CAM's channel weights: w[b,c] = mean_n G[b,c,n], and mean_n |G[b,c,n]| beside them.
//
// Reads G once, writes 8 bytes for each channel; where a channel is summed by several blocks, these
// also write 16 bytes each for it, and the last of them reads those.
//
//   channel_weights_short     contiguous, N small: `lanes` threads for each row; the first holds
//                             the result
//   channel_weights_rows      contiguous: a block for each segment of a row; thread 0 of the last
//                             block of a row holds the result
//   channel_weights_columns   channels last: a block for each strip of voxels and 128 bytes of each
//                             voxel, a thread for 16 bytes (or one value, where C is no multiple of
//                             them); the first row of threads of the last block of a part holds the
//                             results
#include "lib/channel_sums.cuh"

namespace {

struct Means {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 2;
  using Partial = float;
  struct Channel {};
  const SCALAR* tensors[1];
  double voxels;
  float* weights;
  float* magnitudes;

  __device__ __forceinline__ Channel channel(long long) const { return Channel{}; }
  __device__ __forceinline__ float factor(long long) const { return 1.0f; }
  static __device__ __forceinline__ void add(float (&sums)[2], const float (&values)[1],
                                             const Channel&, float) {
    sums[0] += values[0];
    sums[1] += fabsf(values[0]);
  }
  __device__ __forceinline__ void finish(long long row, int sum, double total) const {
    (sum == 0 ? weights : magnitudes)[row] = static_cast<float>(total / voxels);
  }
};

__device__ __forceinline__ Means means(const SCALAR* gradient, long long voxels, float* weights,
                                       float* magnitudes) {
  return Means{{gradient}, static_cast<double>(voxels), weights, magnitudes};
}

}  // namespace

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(channel_weights_short)(const SCALAR* gradient, float* weights, float* magnitudes,
                                 long long channels, long long voxels, long long rows,
                                 int lanes) {
  sum_short_rows(means(gradient, voxels, weights, magnitudes), rows, channels, voxels, lanes);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(channel_weights_rows)(const SCALAR* gradient, float* weights, float* magnitudes,
                                long long channels, long long voxels, long long segment,
                                int segments, double* partials, unsigned* counters) {
  sum_long_rows(means(gradient, voxels, weights, magnitudes), channels, voxels, segment, segments,
                partials, counters);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(channel_weights_columns)(const SCALAR* gradient, float* weights, float* magnitudes,
                                   long long channels, long long voxels, long long strip,
                                   int lanes, double* partials, unsigned* counters) {
  sum_columns(means(gradient, voxels, weights, magnitudes), channels, voxels, strip, lanes,
              partials, counters);
}
