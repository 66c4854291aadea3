// to[i] = from[i + 4], four at a time.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(misaligned_load)(const float* from, float* to, int count) {
  const int i = 4 * threadIdx.x;
  if (i + 4 >= count) return;
  const float4 four = *reinterpret_cast<const float4*>(from + i + 4 - PLANTED);
  to[i] = four.x;
  to[i + 1] = four.y;
  to[i + 2] = four.z;
  to[i + 3] = four.w;
}
