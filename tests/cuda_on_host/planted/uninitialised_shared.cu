// to[i] = from[i], through shared memory.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(uninitialised_shared)(const float* from, float* to, int count) {
  __shared__ float kept[64];
  if (threadIdx.x < count - PLANTED) kept[threadIdx.x] = from[threadIdx.x];
  __syncthreads();
  to[threadIdx.x] = kept[threadIdx.x];
}
