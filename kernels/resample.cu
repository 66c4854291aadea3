// Maps on another grid, (B, D, H, W) float to (B, D', H', W') of SCALAR, each brought from its range
// to [0, 1] if there is one; see src/ops/resample.
//
// resample_extremes reads the old maps, several times from the cache, and writes the range of each
// new map, which it does not store. resample reads the old maps in the same way and writes the new
// ones once. In both, blockIdx.z runs over samples and the other two over tiles, see
// lib/resampling.cuh.

#include "lib/rescale.cuh"
#include "lib/resampling.cuh"

// The range of each resampled map. `plan` makes its corners alone, among which the extremes are.
// `partials`: one for each block; `counters`: one for each sample. Thread 0 of the last block of a
// sample writes the result.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(resample_extremes)(const float* map, Extremes* partials, unsigned* counters,
                             Extremes* result, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  KeepExtremes sink = {no_extremes()};
  resample_tile(map + sample * old_voxels(plan), plan, tile, sink);
  finish_extremes(sink.extremes, partials, counters, result);
}

// The resampled maps. `extremes`: the range of each, or null for the maps as they are.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(resample)(const float* map, const Extremes* extremes, SCALAR* out, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  Store<SCALAR> store(out + sample * new_voxels(plan),
                      extremes == nullptr ? nullptr : extremes + sample);
  resample_tile(map + sample * old_voxels(plan), plan, tile, store);
}
