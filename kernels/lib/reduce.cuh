// Reductions over a warp and a block in one fixed order, so that each run gives the same bits.
//
// Every thread of the block calls these, with blockDim.x == kThreads, a multiple of 32.
#pragma once

constexpr unsigned kAllLanes = 0xffffffffu;

struct Sum {
  template <typename T>
  __device__ __forceinline__ T operator()(T a, T b) const {
    return a + b;
  }
};

// The value of the lane whose index differs in the bits of `mask`; types of several words overload it.
template <typename T>
__device__ __forceinline__ T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(kAllLanes, value, mask);
}

// `join` of the values of all 32 lanes, as a tree of pairs; every lane holds the result.
template <typename T, typename Join>
__device__ __forceinline__ T warp_reduce(T value, Join join) {
#pragma unroll
  for (int mask = 16; mask > 0; mask >>= 1) {
    value = join(value, shuffle_xor(value, mask));
  }
  return value;
}

// `join` of the values of all threads of the block; thread 0 holds the result, in the others it is
// undefined. `none` leaves every value as it is. It may be called again at once: it waits for the
// readers of the last call.
template <int kThreads, typename T, typename Join>
__device__ __forceinline__ T block_reduce(T value, T none, Join join) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kThreads % 32 == 0 && kWarps <= 32, "whole warps, at most 32 of them");
  __shared__ T of_warp[kWarps];
  value = warp_reduce(value, join);
  if (kWarps == 1) return value;
  __syncthreads();
  if (threadIdx.x % 32 == 0) of_warp[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x >= 32) return none;
  return warp_reduce(threadIdx.x < kWarps ? of_warp[threadIdx.x] : none, join);
}
