// to[i] = from[i] in the first warp, -from[i] in the second.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(divergent_barrier)(const float* from, float* to, int) {
  __shared__ float kept[64];
#if PLANTED
  if (threadIdx.x < 32) {
    kept[threadIdx.x] = from[threadIdx.x];
    __syncthreads();
  } else {
    kept[threadIdx.x] = -from[threadIdx.x];
    __syncthreads();
  }
#else
  kept[threadIdx.x] = threadIdx.x < 32 ? from[threadIdx.x] : -from[threadIdx.x];
  __syncthreads();
#endif
  to[threadIdx.x] = kept[threadIdx.x];
}
