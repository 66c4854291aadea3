// The weighted sum of the channels: map[b,n] = sum_c w[b,c] * A[b,c,n], rectified or not, and the
// extremes of each sample. Without weights each is 1/C: the mean of the channels.
//
// Reads A once, writes 4 bytes for each voxel; where the channels of a tile are split, 4 bytes for
// each part of them are written and read too.
//
//   project_rows      contiguous: a block for each tile of voxels and, where those are too few to
//                     fill a device, each part of the channels; a thread for 16 bytes (or one
//                     voxel, where N is no multiple of them). Thread 0 to `threads` - 1 of the
//                     last block of a tile hold its sums
//   project_columns   channels last: `lanes` threads for each voxel, 4 voxels at a time; the first
//                     holds the sum
//   project_few       the same where there are few voxels: 4 times 16 bytes of one at a time
//
// The last block of a sample reduces its extremes, 16 bytes for each tile; thread 0 writes them.
#include "lib/voxel_sums.cuh"

namespace {

struct Project {
  static constexpr int kTensors = 1;
  const SCALAR* tensors[1];
  const float* weights;
  float weight;
  bool rectify;

  __device__ __forceinline__ float term(const float (&values)[1], float of_channel) const {
    return of_channel * values[0];
  }
};

}  // namespace

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(project_rows)(const SCALAR* activation, const float* weights, float weight, int rectify,
                        long long channels, long long voxels, int threads, int splits, float* map,
                        Extremes* extremes, Extremes* of_tile, float* partials,
                        unsigned* counters) {
  sum_rows(Project{{activation}, weights, weight, rectify != 0},
           MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, threads,
           splits);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(project_columns)(const SCALAR* activation, const float* weights, float weight,
                           int rectify, long long channels, long long voxels, int lanes, int steps,
                           float* map, Extremes* extremes, Extremes* of_tile, float* partials,
                           unsigned* counters) {
  sum_voxels(Project{{activation}, weights, weight, rectify != 0},
             MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, lanes, steps);
}

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(project_few)(const SCALAR* activation, const float* weights, float weight, int rectify,
                       long long channels, long long voxels, int lanes, int steps, float* map,
                       Extremes* extremes, Extremes* of_tile, float* partials, unsigned* counters) {
  sum_few_voxels(Project{{activation}, weights, weight, rectify != 0},
                 MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, lanes,
                 steps);
}
