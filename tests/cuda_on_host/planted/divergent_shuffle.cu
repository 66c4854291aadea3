// to[i] = from[i ^ 1] in the first half of each warp, from[i] in the second.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(divergent_shuffle)(const float* from, float* to, int) {
  float value = from[threadIdx.x];
  const unsigned mask = PLANTED ? 0xffffffffu : 0x0000ffffu;
  if (threadIdx.x % 32 < 16) value = __shfl_xor_sync(mask, value, 1);
  __syncthreads();
  to[threadIdx.x] = value;
}
