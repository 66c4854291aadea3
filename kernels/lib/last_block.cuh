// The end of a reduction across blocks without a second launch.
#pragma once

// Whether this block is the last of `blocks` that came here; then it sees what the others wrote to
// device memory before. `counter` must be 0 and is 0 again afterwards. All threads of the block
// call it, and all get the same answer.
__device__ __forceinline__ bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  __threadfence();
  // Not before all threads of this block have written, nor while one still reads an earlier answer.
  __syncthreads();
  if (threadIdx.x == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}
