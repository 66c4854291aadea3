// HiResCAM and LayerCAM: map[b,n] = ReLU(sum_c G[b,c,n] * A[b,c,n]), of the latter with ReLU(G) in
// place of G, and the extremes of each sample.
//
// Reads A and G once, writes 4 bytes for each voxel; where the channels of a tile are split, 4
// bytes for each part of them are written and read too.
//
//   elementwise_rows      contiguous: a block for each tile of voxels and, where those are too few
//                         to fill a device, each part of the channels; a thread for 16 bytes (or
//                         one voxel, where N is no multiple of them). Thread 0 to `threads` - 1 of
//                         the last block of a tile hold its sums
//   elementwise_columns   channels last: `lanes` threads for each voxel, 4 voxels at a time; the
//                         first holds the sum
//   elementwise_few       the same where there are few voxels: 4 times 16 bytes of one at a time
//
// The last block of a sample reduces its extremes, 16 bytes for each tile; thread 0 writes them.
#include "lib/voxel_sums.cuh"

namespace {

struct Products {
  static constexpr int kTensors = 2;
  const SCALAR* tensors[2];
  const float* weights;
  float weight;
  bool rectify;
  bool positive_gradients;

  __device__ __forceinline__ float term(const float (&values)[2], float) const {
    const float gradient = values[1];
    // ReLU that leaves NaN and makes -inf one, so that neither is lost.
    return (positive_gradients ? gradient * (gradient > 0.0f ? 1.0f : 0.0f) : gradient) *
           values[0];
  }
};

}  // namespace

// Four channels of both tensors at a time: 128 bytes under way in each thread, in up to 80 registers.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 3)
    ENTRY(elementwise_rows)(const SCALAR* activation, const SCALAR* gradient,
                            int positive_gradients, long long channels, long long voxels,
                            int threads, int splits, float* map, Extremes* extremes,
                            Extremes* of_tile, float* partials, unsigned* counters) {
  sum_rows(Products{{activation, gradient}, nullptr, 0.0f, true, positive_gradients != 0},
           MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, threads,
           splits);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(elementwise_columns)(const SCALAR* activation, const SCALAR* gradient,
                               int positive_gradients, long long channels, long long voxels,
                               int lanes, int steps, float* map, Extremes* extremes,
                               Extremes* of_tile, float* partials, unsigned* counters) {
  sum_voxels(Products{{activation, gradient}, nullptr, 0.0f, true, positive_gradients != 0},
             MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, lanes, steps);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(elementwise_few)(const SCALAR* activation, const SCALAR* gradient, int positive_gradients,
                           long long channels, long long voxels, int lanes, int steps, float* map,
                           Extremes* extremes, Extremes* of_tile, float* partials,
                           unsigned* counters) {
  sum_few_voxels(Products{{activation, gradient}, nullptr, 0.0f, true, positive_gradients != 0},
                 MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, lanes,
                 steps);
}
