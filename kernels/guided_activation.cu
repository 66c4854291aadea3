// The backward of a guided ReLU: g_in = g_out where g_out > 0 and x > 0, else 0, element by
// element.
//
// Reads `input` and `gradient` once and writes `output` once, all of `count` values. Each thread
// takes PACKS_PER_THREAD packs of 16 bytes, BLOCK_THREADS apart, loads them all before it stores
// the first, and writes only where it has read: `output` may be `gradient`. Values outside of whole
// packs (all of them if the three addresses differ modulo 16) are spread over the threads one by
// one.

#include "lib/scalar.cuh"

// Not `g > 0 && x > 0`, which would turn NaN into 0.
__device__ __forceinline__ bool is_stopped(float x, float g) { return g <= 0.0f || x <= 0.0f; }

// The values of a pack of gradients that pass, with all their bits, and 0 in place of the others.
template <typename T>
__device__ __forceinline__ uint4 pass(uint4 input, uint4 gradient) {
  constexpr int kPerWord = kPerPack<T> / 4;
  constexpr int kBits = 32 / kPerWord;
  constexpr unsigned kValue = 0xffffffffu >> (32 - kBits);
  float x[kPerPack<T>], g[kPerPack<T>];
  unpack<T>(input, x);
  unpack<T>(gradient, g);
  unsigned words[4] = {gradient.x, gradient.y, gradient.z, gradient.w};
#pragma unroll
  for (int i = 0; i < kPerPack<T>; ++i) {
    if (is_stopped(x[i], g[i])) words[i / kPerWord] &= ~(kValue << (i % kPerWord * kBits));
  }
  return uint4{words[0], words[1], words[2], words[3]};
}

// `head` values come before the first pack.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(guided_activation)(const SCALAR* input, const SCALAR* gradient, SCALAR* output,
                             long long count, long long head, long long packs) {
  const long long first =
      static_cast<long long>(blockIdx.x) * (BLOCK_THREADS * PACKS_PER_THREAD) + threadIdx.x;
  uint4 x[PACKS_PER_THREAD], g[PACKS_PER_THREAD];
#pragma unroll
  for (int i = 0; i < PACKS_PER_THREAD; ++i) {
    const long long pack = first + i * BLOCK_THREADS;
    if (pack < packs) {
      x[i] = load_streaming(input + head + pack * kPerPack<SCALAR>);
      g[i] = load_streaming(gradient + head + pack * kPerPack<SCALAR>);
    }
  }
#pragma unroll
  for (int i = 0; i < PACKS_PER_THREAD; ++i) {
    const long long pack = first + i * BLOCK_THREADS;
    if (pack < packs) {
      store_pack(output + head + pack * kPerPack<SCALAR>, pass<SCALAR>(x[i], g[i]));
    }
  }

  const long long inside = packs * kPerPack<SCALAR>;
  const long long threads = static_cast<long long>(gridDim.x) * BLOCK_THREADS;
  const long long thread = static_cast<long long>(blockIdx.x) * BLOCK_THREADS + threadIdx.x;
  for (long long i = thread; i < count - inside; i += threads) {
    const long long place = i < head ? i : i + inside;
    const SCALAR value = gradient[place];
    output[place] = is_stopped(widen(input[place]), widen(value)) ? SCALAR{} : value;
  }
}
