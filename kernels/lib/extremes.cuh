// The range of a map, and how much of it was not finite.
#pragma once

#include "lib/last_block.cuh"
#include "lib/reduce.cuh"

// As src/ops/extremes.rs has it. The range is that of the finite values.
struct Extremes {
  float minimum;
  float maximum;
  unsigned not_finite;
  unsigned unused;
};

// Those of no values at all.
__device__ __forceinline__ Extremes no_extremes() {
  return Extremes{__uint_as_float(0x7f800000u), __uint_as_float(0xff800000u), 0, 0};
}

__device__ __forceinline__ bool is_finite(float value) {
  return (__float_as_uint(value) & 0x7f800000u) != 0x7f800000u;
}

// Takes in one value.
__device__ __forceinline__ void take(Extremes& extremes, float value) {
  if (is_finite(value)) {
    extremes.minimum = fminf(extremes.minimum, value);
    extremes.maximum = fmaxf(extremes.maximum, value);
  } else {
    ++extremes.not_finite;
  }
}

// Those of the values of both.
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

// Merges what each thread of the blocks of a sample found, which are those of one blockIdx.z.
// `partial` has room for what each block of the grid found, `counters` one for each sample. Thread 0
// of the sample's last block gets true, and in `all` what all found; nobody else does.
template <int kThreads>
__device__ __forceinline__ bool merge_blocks(Extremes mine, Extremes* partial, unsigned* counters,
                                             Extremes& all) {
  const unsigned blocks = gridDim.x * gridDim.y;
  partial += static_cast<size_t>(blockIdx.z) * blocks;
  mine = block_reduce<kThreads>(mine, no_extremes(), Merge());
  if (threadIdx.x == 0) partial[blockIdx.y * gridDim.x + blockIdx.x] = mine;
  if (!is_last_block(&counters[blockIdx.z], blocks)) return false;
  all = no_extremes();
  for (unsigned i = threadIdx.x; i < blocks; i += kThreads) all = Merge()(all, partial[i]);
  all = block_reduce<kThreads>(all, no_extremes(), Merge());
  return threadIdx.x == 0;
}
