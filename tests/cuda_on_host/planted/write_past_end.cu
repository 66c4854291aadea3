// to[i] = from[i], by two blocks of which the second has next to nothing to do.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(write_past_end)(const float* from, float* to, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count + PLANTED) to[i] = from[min(i, count - 1)];
}
