// The range of a map, and how much of it was not finite.
#pragma once

#include "lib/last_block.cuh"
#include "lib/reduce.cuh"

// DeviceExtremes of src/ops/extremes/cuda.rs. The range is that of the finite values.
struct Extremes {
  float minimum;
  float maximum;
  unsigned not_finite;
  unsigned unused;
};

// The extremes of no values: merging them changes nothing.
__device__ __forceinline__ Extremes no_extremes() {
  return Extremes{__uint_as_float(0x7f800000u), __uint_as_float(0xff800000u), 0, 0};
}

__device__ __forceinline__ bool is_finite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}

__device__ __forceinline__ void include(Extremes& extremes, float value) {
  if (is_finite(value)) {
    extremes.minimum = fminf(extremes.minimum, value);
    extremes.maximum = fmaxf(extremes.maximum, value);
  } else {
    ++extremes.not_finite;
  }
}

// The extremes of the values of both.
struct Merge {
  __device__ __forceinline__ Extremes operator()(Extremes a, Extremes b) const {
    return Extremes{fminf(a.minimum, b.minimum), fmaxf(a.maximum, b.maximum),
                    a.not_finite + b.not_finite, 0};
  }
};

__device__ __forceinline__ Extremes shuffle_xor(Extremes extremes, int mask) {
  return Extremes{__shfl_xor_sync(kAllLanes, extremes.minimum, mask),
                  __shfl_xor_sync(kAllLanes, extremes.maximum, mask),
                  __shfl_xor_sync(kAllLanes, extremes.not_finite, mask), 0};
}

// Merges the extremes that the threads of all `blocks` blocks of a sample found; this is block
// `block`. `partials`: one for each block of the sample; `counter`: that of the sample. Returns true
// in thread 0 of the sample's last block, where `found` is then the merged result; in other threads
// it is undefined.
template <int kThreads>
__device__ __forceinline__ bool merge_blocks(Extremes& found, Extremes* partials, unsigned* counter,
                                             unsigned block, unsigned blocks) {
  found = block_reduce<kThreads>(found, no_extremes(), Merge());
  if (blocks > 1) {
    if (threadIdx.x == 0) partials[block] = found;
    if (!is_last_block(counter, blocks)) return false;
    found = no_extremes();
    for (unsigned i = threadIdx.x; i < blocks; i += kThreads) found = Merge()(found, partials[i]);
    found = block_reduce<kThreads>(found, no_extremes(), Merge());
  }
  return threadIdx.x == 0;
}
