// The functions of CUDA that kernels here rely on, each next to what intrinsics.rs expects of it:
// what the host makes of them is what a device makes of them. One word per result and thread.

#include "lib/scalar.cuh"

constexpr unsigned kAll = 0xffffffffu;

// One warp: to[32 * k + lane] is the k-th result of a lane.
extern "C" __global__ void ENTRY(warp_functions)(unsigned* to) {
  const unsigned lane = threadIdx.x;
  int k = 0;
  const auto put = [&](unsigned result) { to[32 * k++ + lane] = result; };
  put(__shfl_sync(kAll, 10 * lane, 5));
  put(__shfl_sync(kAll, 10 * lane, lane + 3, 8));
  put(__shfl_up_sync(kAll, 10 * lane, 3));
  put(__shfl_up_sync(kAll, 10 * lane, 3, 8));
  put(__shfl_down_sync(kAll, 10 * lane, 3));
  put(__shfl_down_sync(kAll, 10 * lane, 3, 8));
  put(__shfl_xor_sync(kAll, 10 * lane, 17));
  put(__shfl_xor_sync(kAll, 10 * lane, 7, 16));
  put(static_cast<unsigned>(2.0 * __shfl_down_sync(kAll, 1.5 * lane, 1)));
  put(static_cast<unsigned>(__shfl_xor_sync(kAll, 5000000000ll * lane, 1) / 100000000));
  put(__ballot_sync(kAll, lane % 3 == 0));
  put(__any_sync(kAll, lane == 31) + 2 * __any_sync(kAll, lane == 32));
  put(__all_sync(kAll, lane < 32) + 2 * __all_sync(kAll, lane < 31));
  // Two groups in divergent code, each with its own mask.
  unsigned found;
  if (lane < 16) {
    found = __shfl_xor_sync(0x0000ffffu, lane, 1);
  } else {
    found = __ballot_sync(0xffff0000u, lane % 2);
    __syncwarp(0xffff0000u);
  }
  put(found);
}

// Blocks of 60 threads in a grid of three axes: 4 results of each block.
extern "C" __global__ void ENTRY(block_functions)(unsigned* to) {
  __shared__ unsigned sum;
  const unsigned thread = threadIdx.x;
  if (thread == 0) sum = 0;
  __syncthreads();
  atomicAdd(&sum, thread);
  __syncthreads();
  const int count = __syncthreads_count(thread % 4 == 0);
  const int any = __syncthreads_or(thread == 59) + 2 * __syncthreads_or(thread == 60);
  const int all = __syncthreads_and(thread < 60) + 2 * __syncthreads_and(thread < 59);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  if (thread >= 40) return;
  // Threads that have ended are not waited for.
  __syncthreads();
  if (thread != 39) return;
  to[4 * block] = sum;
  to[4 * block + 1] = count;
  to[4 * block + 2] = any;
  to[4 * block + 3] = all;
}

// By any number of threads.
extern "C" __global__ void ENTRY(atomics)(unsigned* words, unsigned long long* wide, float* sum,
                                          int* ints) {
  const unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&words[0], 1u);
  atomicSub(&words[1], 1u);
  atomicMin(&words[2], i);
  atomicMax(&words[3], i);
  atomicOr(&words[4], 1u << i % 32);
  atomicAnd(&words[5], ~(1u << i % 32));
  atomicXor(&words[6], i);
  atomicInc(&words[7], 6u);
  if (atomicExch(&words[8], 1u) == 0) atomicAdd(&words[9], 1u);
  unsigned seen = atomicAdd(&words[10], 0u);
  for (unsigned expected = seen + 1; seen != expected;) {
    expected = seen;
    seen = atomicCAS(&words[10], expected, expected + 2);
  }
  atomicAdd(&wide[0], 1ull << 40);
  atomicMin(&wide[1], (1ull << 40) + i);
  atomicMax(&wide[2], (1ull << 40) + i);
  atomicAdd(sum, 0.5f);
  atomicMin(&ints[0], -static_cast<int>(i));
  atomicMax(&ints[1], -static_cast<int>(i) - 1);
}

// One thread per value: what becomes of it, in words[kResults * i + k].
extern "C" __global__ void ENTRY(numbers)(const float* values, unsigned* words, int count) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  const float value = __ldg(values + i);
  int k = 0;
  const auto put = [&](float result) { words[11 * i + k++] = __float_as_uint(result); };
  put(widen(narrow<f16>(value)));
  put(fminf(value, 1.0f));
  put(fmaxf(value, 1.0f));
  put(rintf(value));
  put(floorf(value));
  put(fmaf(value, value, -1.0f));
  put(fabsf(value));
  put(__int_as_float(__float_as_int(value) ^ 0x80000000));
  put(__uint_as_float(min(__float_as_uint(value), 0x40000000u)));
  put(static_cast<float>(max(static_cast<long long>(3), static_cast<long long>(i))));
  const unsigned long long wide = 0x9e3779b97f4a7c15ull * __float_as_uint(value);
  words[11 * i + k] = static_cast<unsigned>(__umul64hi(wide, ~wide));
}
