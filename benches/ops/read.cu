// Reads all values and adds them up: the bandwidth of reading alone, the ceiling of ops that write
// next to nothing.
#include "lib/scalar.cuh"

extern "C" __global__ void __launch_bounds__(BLOCK_THREADS)
    ENTRY(read_all)(const float4* from, float* to, long long count) {
  const long long step = static_cast<long long>(gridDim.x) * BLOCK_THREADS;
  long long i = static_cast<long long>(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
  float sum = 0.0f;
  // Several loads at once, or the wait for each would be the limit.
  for (; i + 3 * step < count; i += 4 * step) {
    const float4 a = from[i], b = from[i + step], c = from[i + 2 * step], d = from[i + 3 * step];
    sum += a.x + a.y + a.z + a.w + b.x + b.y + b.z + b.w;
    sum += c.x + c.y + c.z + c.w + d.x + d.y + d.z + d.w;
  }
  for (; i < count; i += step) sum += from[i].x + from[i].y + from[i].z + from[i].w;
  // Never true of values in [0, 1); without a use of the sum the compiler would remove the loads.
  if (sum < 0.0f) *to = sum;
}
