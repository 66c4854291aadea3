// to[i] = from[i + 1], and 0 at the end. What is read past the end is not used.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(read_past_end)(const float* from, float* to, int count) {
  const int next = threadIdx.x + 1;
  const float value = from[PLANTED ? next : min(next, count - 1)];
  to[threadIdx.x] = next < count ? value : 0.0f;
}
