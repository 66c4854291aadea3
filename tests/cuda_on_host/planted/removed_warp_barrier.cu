// to[i] = from[i ^ 1], through shared memory, by the threads of each warp.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(removed_warp_barrier)(const float* from, float* to, int) {
  __shared__ float kept[64];
  kept[threadIdx.x] = from[threadIdx.x];
#if !PLANTED
  __syncwarp();
#endif
  to[threadIdx.x] = kept[threadIdx.x ^ 1];
}
