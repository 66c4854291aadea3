// Guided Grad-CAM: maps (B, D, H, W) float, resampled linearly, times guided maps (B, D', H', W')
// float, as (B, D', H', W') of SCALAR, each brought from its range to [0, 1] if there is one; see
// src/ops/guided_product.
//
// guided_product_extremes reads the guided maps once, and the others from the cache, and writes the
// range of each product. guided_product reads the same and writes the products once. In both,
// blockIdx.z runs over samples and the other two over tiles, see lib/resampling.cuh.

#include "lib/rescale.cuh"
#include "lib/resampling.cuh"

// Values `first` to `first + 3` of a stretch of `voxels`, and 0 for those outside of it.
__device__ __forceinline__ void load_four(const float* stretch, int first, int voxels,
                                          float (&values)[4]) {
  if (first >= 0 && first + 4 <= voxels && is_pack_aligned(stretch + first)) {
    unpack<f32>(load_pack(stretch + first), values);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[i] = first + i >= 0 && first + i < voxels ? stretch[first + i] : 0.0f;
  }
}

// Multiplies voxels by those of a guided map, and passes them on.
template <typename Next>
struct Multiply {
  const float* guided;
  Next next;

  __device__ __forceinline__ int shift(long long start) const { return next.shift(start); }

  __device__ __forceinline__ void four(long long start, int first, int voxels,
                                       float (&values)[4]) {
    float factors[4];
    load_four(guided + start, first, voxels, factors);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] *= factors[i];
    next.four(start, first, voxels, values);
  }
};

// The range of each product. `partials`, `counters` and `result` as for resample_extremes.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(guided_product_extremes)(const float* map, const float* guided, Extremes* partials,
                                   unsigned* counters, Extremes* result, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  Multiply<KeepExtremes> sink = {guided + sample * new_voxels(plan), {no_extremes()}};
  resample_tile(map + sample * old_voxels(plan), plan, tile, sink);
  finish_extremes(sink.next.extremes, partials, counters, result);
}

// The products. `extremes`: the range of each, or null for the products as they are.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(guided_product)(const float* map, const float* guided, const Extremes* extremes,
                          SCALAR* out, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  const long long first = sample * new_voxels(plan);
  const Store<SCALAR> store(out + first, extremes == nullptr ? nullptr : extremes + sample);
  Multiply<Store<SCALAR>> product = {guided + first, store};
  resample_tile(map + sample * old_voxels(plan), plan, tile, product);
}
