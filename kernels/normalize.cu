// Maps that stay on their grid, (B, D, H, W) float to SCALAR, each brought from its range to [0, 1] if
// there is one; see src/ops/normalize.
//
// Reads and writes each voxel once. blockIdx.z runs over samples, blockIdx.x over stretches of one.

#include "lib/rescale.cuh"

// Maps of `voxels` values each; `out` may be `map`. A thread takes FOURS_PER_THREAD groups of four,
// BLOCK_THREADS apart, and loads them all before it stores the first.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(rescale)(const float* map, const Extremes* extremes, SCALAR* out, long long voxels) {
  const long long sample = blockIdx.z;
  map += sample * voxels;
  Store<SCALAR> store(out + sample * voxels, extremes == nullptr ? nullptr : extremes + sample);
  constexpr int kStretch = 4 * BLOCK_THREADS * FOURS_PER_THREAD;
  const long long start = static_cast<long long>(blockIdx.x) * kStretch - store.shift(0);
  const float* values_from = map + start;
  const bool aligned = is_pack_aligned(values_from);
  // Where the sample begins and ends in the stretch.
  const int begin = start < 0 ? static_cast<int>(-start) : 0;
  const int end = static_cast<int>(min(voxels - start, static_cast<long long>(kStretch)));

  float values[FOURS_PER_THREAD][4] = {};
#pragma unroll
  for (int k = 0; k < FOURS_PER_THREAD; ++k) {
    const int first = 4 * (threadIdx.x + k * BLOCK_THREADS);
    if (aligned && first >= begin && first + 4 <= end) {
      unpack<f32>(load_streaming(values_from + first), values[k]);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (first + i >= begin && first + i < end) values[k][i] = values_from[first + i];
      }
    }
  }
#pragma unroll
  for (int k = 0; k < FOURS_PER_THREAD; ++k) {
    const int first = 4 * (threadIdx.x + k * BLOCK_THREADS);
    store.four(start + begin, first - begin, end - begin, values[k]);
  }
}
