// Kernels for the tests of the device layer. One thread per value; each reads and writes it once.

#include "lib/last_block.cuh"
#include "lib/scalar.cuh"

// values[i] = value.
extern "C" __global__ void ENTRY(fill)(SCALAR* values, long long count, float value) {
  const long long i = static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < count) values[i] = narrow<SCALAR>(value);
}

// to[i] = from[count - 1 - i], by one block, through `count` floats of dynamic shared memory.
extern "C" __global__ void ENTRY(reverse)(const SCALAR* from, SCALAR* to, int count) {
  extern __shared__ float kept[];
  for (int i = threadIdx.x; i < count; i += blockDim.x) kept[i] = widen(from[i]);
  __syncthreads();
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    to[i] = narrow<SCALAR>(kept[count - 1 - i]);
  }
}

// lasts[0] = how many blocks found that they are the last.
extern "C" __global__ void ENTRY(count_lasts)(unsigned* counter, unsigned* lasts) {
  const bool last = is_last_block(counter, gridDim.x);
  if (last && threadIdx.x == 0) atomicAdd(lasts, 1u);
}
