// Guided Grad-CAM: maps (B, D, H, W) float on another grid, linear, times guided maps (B, D', H',
// W') float, as (B, D', H', W') of SCALAR, each from its range to [0, 1] if there is one; see
// src/ops/guided_product.
//
// guided_product_extremes reads the guided maps once, and the others from the cache, and writes the
// range of each product. guided_product reads the same and writes the products once. Both run
// blockIdx.z over samples and the other two over tiles, as lib/resample.cuh says.

#include "lib/rescale.cuh"
#include "lib/resample.cuh"

// Four values of a stretch of `voxels`, from `first` on, as far as they are in it.
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

// Multiplies voxels by those of a guided map before `Then` takes them.
template <typename Then>
struct Multiply {
  const float* guided;
  Then then;

  __device__ __forceinline__ int shift(long long start) const { return then.shift(start); }

  __device__ __forceinline__ void four(long long start, int first, int voxels,
                                       float (&values)[4]) {
    float factors[4];
    load_four(guided + start, first, voxels, factors);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[i] *= factors[i];
    then.four(start, first, voxels, values);
  }
};

// The range of each product. `partial`, `counters` and `result` as for resample_extremes.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(guided_product_extremes)(const float* map, const float* guided, Extremes* partial,
                                   unsigned* counters, Extremes* result, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  Multiply<Tally> tally = {guided + sample * new_voxels(plan), {no_extremes()}};
  resample_tile(map + sample * old_voxels(plan), plan, tile, tally);

  Extremes all;
  if (merge_blocks<BLOCK_THREADS>(tally.then.extremes, partial, counters, all)) {
    result[sample] = all;
  }
}

// The products. `extremes`: the range of each, or null for the products as they are.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, 4)
    ENTRY(guided_product)(const float* map, const float* guided, const Extremes* extremes,
                          SCALAR* out, Resampling plan) {
  __shared__ Tile tile;
  const long long sample = blockIdx.z;
  const long long first = sample * new_voxels(plan);
  const Store<SCALAR> store(out + first, extremes == nullptr ? nullptr : extremes + sample);
  Multiply<Store<SCALAR>> product = {guided + first, store};
  resample_tile(map + sample * old_voxels(plan), plan, tile, product);
}
