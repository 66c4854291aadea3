// to[i] = from[i]. A device takes the nearest int where none is equal; C++ leaves it open.
#include "lib/scalar.cuh"

extern "C" __global__ void ENTRY(saturating_cast)(const float* from, float* to, int count) {
  const float large = 1e10f * from[threadIdx.x];
  const int rounded = static_cast<int>(PLANTED ? large : fminf(large, 1e9f));
  if (rounded >= count) to[threadIdx.x] = from[threadIdx.x];
}
