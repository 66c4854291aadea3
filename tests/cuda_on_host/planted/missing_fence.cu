// to[i] = from[i] by one thread of block i, read again by the last block, which negates them.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(missing_fence)(const float* from, float* to, int count) {
  unsigned* finished = reinterpret_cast<unsigned*>(to + count - 1);
  if (threadIdx.x != 0) return;
  to[blockIdx.x] = from[blockIdx.x];
#if !PLANTED
  __threadfence();
#endif
  if (atomicInc(finished, gridDim.x - 1) != gridDim.x - 1) return;
#if !PLANTED
  __threadfence();
#endif
  for (int i = 0; i < gridDim.x; ++i) to[i] = -to[i];
}
