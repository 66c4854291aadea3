// The end of a reduction across blocks without a second launch.
#pragma once

// Whether this block is the last of `blocks` that came here; then it sees what the others wrote to
// device memory before. `counter` must be 0 and is 0 again afterwards. All threads of the block
// call it, and all get the same answer.
//
// Thread 0 fences for the whole block, as in the grid barrier of cooperative groups. In the memory
// model of PTX a barrier synchronizes the threads of its block, so their writes precede the fence
// behind it in causality order. Causality order is transitive: it goes on through thread 0's atomic
// to the one that reads it, in the last block's thread 0, and by its fence and barrier to the
// reads of all threads of that block. `__threadfence` is `fence.sc.gpu`: it also drops what this
// multiprocessor's first-level cache holds, from which the plain reads of any thread of the block
// could otherwise come. Both fences must stay between the barriers: a fence by thread 0 in front of
// the first one would order its own writes alone.
__device__ __forceinline__ bool is_last_block(unsigned* counter, unsigned blocks) {
  __shared__ bool last;
  // All threads of this block have written, and none still reads an earlier answer.
  __syncthreads();
  if (threadIdx.x == 0) {
    __threadfence();
    last = atomicInc(counter, blocks - 1) == blocks - 1;
    if (last) __threadfence();
  }
  __syncthreads();
  return last;
}
