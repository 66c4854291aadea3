// to[i] = from[i], through dynamic shared memory of `count` floats.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(dynamic_shared_overrun)(const float* from, float* to, int count) {
  extern __shared__ float kept[];
  kept[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = kept[threadIdx.x];
  if (threadIdx.x == count - 1) kept[threadIdx.x + PLANTED] = 0.0f;
}
