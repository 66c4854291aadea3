// to[i] = from[i], through shared memory that a function gets as a pointer.
#include "lib/scalar.cuh"

__device__ void keep(float* kept, int i, float value) { kept[i] = value; }

extern "C" __global__ void ENTRY(static_shared_overrun)(const float* from, float* to, int count) {
  __shared__ float kept[60];
  keep(kept, threadIdx.x, from[threadIdx.x]);
  __syncthreads();
  to[threadIdx.x] = kept[threadIdx.x];
  if (threadIdx.x == count - 1) keep(kept, threadIdx.x + PLANTED, 0.0f);
}
