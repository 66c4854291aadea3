// Grad-CAM's channel weights: w[b,c] = mean_n G[b,c,n], and with them mean_n |G[b,c,n]|.
//
// Reads G once, writes 8 bytes for each channel. Where several blocks sum a channel, each also writes
// 16 bytes for it, and the last of them reads these.
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

  static __device__ constexpr bool read_once(int) { return true; }
  __device__ __forceinline__ Channel channel(long long) const { return Channel{}; }
  static __device__ __forceinline__ void add(float (&sums)[2], const float (&values)[1],
                                             const Channel&) {
    sums[0] += values[0];
    sums[1] += fabsf(values[0]);
  }
  __device__ __forceinline__ void finish(long long row, int sum, double total) const {
    (sum == 0 ? weights : magnitudes)[row] = static_cast<float>(total / voxels);
  }
};

}  // namespace

CHANNEL_SUMS_ENTRIES(channel_weights, RESIDENT_BLOCKS,
                     (Means{{gradient}, static_cast<double>(voxels), weights, magnitudes}),
                     const SCALAR* gradient, float* weights, float* magnitudes)
