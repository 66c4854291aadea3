// Maps on another grid, (B, D, H, W) float to (B, D', H', W') of SCALAR, each from its range to
// [0, 1] if there is one; see src/ops/resample.
//
// resample_extremes reads the old maps, a few times over from the cache, and writes the range of
// each new one, without the map. resample reads the old maps in the same way and writes the new
// ones once. Both run blockIdx.z over samples and the other two over tiles, as lib/resample.cuh
// says. rescale is for a grid that stays: it reads and writes each voxel once.

#include "lib/rescale.cuh"
#include "lib/resample.cuh"

// The range of each resampled map. Of `plan`, only the voxels among which the extremes are are
// wanted. `source`: what is known of the old maps, whose count of values that are not finite is
// passed on; if it is null, that of the wanted voxels is. `partial`: room for what each block found;
// `counters`: one for each sample. Thread 0 of the last block of a sample writes the result.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(resample_extremes)(const float* map, const Extremes* source, Extremes* partial,
                             unsigned* counters, Extremes* result, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  Tally tally = {no_extremes()};
  resample_tile(map + sample * old_voxels(plan), plan, tile, tally);

  Extremes all;
  if (merge_blocks<BLOCK_THREADS>(tally.extremes, partial, counters, all)) {
    if (source != nullptr) all.not_finite = source[sample].not_finite;
    result[sample] = all;
  }
}

// The resampled maps. `extremes`: the range of each, or null for the maps as they are.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(resample)(const float* map, const Extremes* extremes, SCALAR* out, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  Store<SCALAR> store(out + sample * new_voxels(plan),
                      extremes == nullptr ? nullptr : extremes + sample);
  resample_tile(map + sample * old_voxels(plan), plan, tile, store);
}

// The maps on their own grid, of `voxels` each; `out` may be `map`. A thread takes FOURS_PER_THREAD
// groups of four, BLOCK_THREADS apart, and loads them all before it stores the first.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(rescale)(const float* map, const Extremes* extremes, SCALAR* out, long long voxels) {
  const long long sample = blockIdx.z;
  map += sample * voxels;
  Store<SCALAR> store(out + sample * voxels, extremes == nullptr ? nullptr : extremes + sample);
  constexpr int kStretch = 4 * BLOCK_THREADS * FOURS_PER_THREAD;
  const long long start = static_cast<long long>(blockIdx.x) * kStretch - store.shift(0);
  const float* values_from = map + start;
  const bool aligned = is_pack_aligned(values_from);
  // Of the stretch, the first voxel of the sample and the one behind its last.
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
