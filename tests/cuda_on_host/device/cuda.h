// What a kernel sees of CUDA where g++ compiles it: the part that kernels of this project use.
#pragma once

#include "runtime/kernel_side.h"

// Kernels that must differ between NVRTC and the host ask for this.
#define CUDA_ON_HOST 1

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(bytes) __attribute__((aligned(bytes)))
#define __launch_bounds__(...)

// In a function both make the variable one for all threads of the block: a block runs to its end in
// one thread of the OS before the next begins. Only `thread_local` may follow `extern`; only static
// variables have red zones, so that AddressSanitizer sees accesses past their ends.
#ifdef ON_HOST_STATIC_SHARED
#define __shared__ static
#else
#define __shared__ thread_local
#endif

#define threadIdx (on_host::built_in.thread_index)
#define blockIdx (on_host::built_in.block_index)
#define blockDim (on_host::built_in.block_size)
#define gridDim (on_host::built_in.grid_size)
#define warpSize 32

#include "device/atomics.h"
#include "device/math.h"
#include "device/vectors.h"
#include "device/warp.h"
