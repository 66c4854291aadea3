// to[0] = to[0] + the number of blocks.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(lost_update)(const float*, float* to, int) {
  if (threadIdx.x != 0) return;
#if PLANTED
  to[0] = to[0] + 1.0f;
#else
  atomicAdd(to, 1.0f);
#endif
}
