// to[i] = from[i] + from[i + 16] within a warp, by 48 threads: half of the second warp is missing.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(missing_lane)(const float* from, float* to, int) {
  const float own = from[threadIdx.x];
  const float other = __shfl_down_sync(0xffffffffu, own, 16);
  const bool exists = PLANTED || threadIdx.x + 16 < blockDim.x;
  to[threadIdx.x] = threadIdx.x % 32 < 16 && exists ? own + other : own;
}
