// The storage types that kernels are built for, and how to get from them to float and back.
//
// A file of kernels is compiled once per type with -DSCALAR=f32, f16, bf16 or u8. Values are widened
// on load, all arithmetic is in float, and stores narrow. NVRTC has no cuda_fp16.h without a
// toolkit, so f16 and bf16 are bits here.
#pragma once

using f32 = float;
using u8 = unsigned char;
struct f16 {
  unsigned short bits;
};
struct bf16 {
  unsigned short bits;
};

// The name of an entry point in this build: ENTRY(project) is project_f16 where SCALAR is f16.
#define ENTRY_JOIN(name, scalar) name##_##scalar
#define ENTRY_OF(name, scalar) ENTRY_JOIN(name, scalar)
#define ENTRY(name) ENTRY_OF(name, SCALAR)

__device__ __forceinline__ float widen(f32 value) { return value; }

__device__ __forceinline__ float widen(f16 value) {
#ifdef CUDA_ON_HOST
  return static_cast<float>(__builtin_bit_cast(_Float16, value.bits));
#else
  float wide;
  asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
  return wide;
#endif
}

__device__ __forceinline__ float widen(bf16 value) {
  return __uint_as_float(static_cast<unsigned>(value.bits) << 16);
}

// The nearest value of the type, ties to even. A u8 holds 255ths of [0, 1].
template <typename T>
__device__ __forceinline__ T narrow(float value);

template <>
__device__ __forceinline__ f32 narrow<f32>(float value) {
  return value;
}

template <>
__device__ __forceinline__ f16 narrow<f16>(float value) {
#ifdef CUDA_ON_HOST
  return f16{__builtin_bit_cast(unsigned short, static_cast<_Float16>(value))};
#else
  f16 narrowed;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrowed.bits) : "f"(value));
  return narrowed;
#endif
}

template <>
__device__ __forceinline__ u8 narrow<u8>(float value) {
  return static_cast<u8>(rintf(value * 255.0f));
}

// ReLU that keeps NaN and turns -inf into NaN: with fmaxf a gradient that is not finite would become
// 0 and go unnoticed.
__device__ __forceinline__ float relu(float value) {
  return value * (value > 0.0f ? 1.0f : 0.0f);
}

// ---- 16 bytes at a time: the widest access of a thread.

// How many values of a type 16 bytes hold.
template <typename T>
constexpr int kPerPack = 16 / static_cast<int>(sizeof(T));

// Whether a pointer may be read 16 bytes at a time.
__device__ __forceinline__ bool is_pack_aligned(const void* pointer) {
  return (reinterpret_cast<size_t>(pointer) & 15) == 0;
}

// 16 bytes that are read once, so that they need not stay in the cache.
__device__ __forceinline__ uint4 load_streaming(const void* pointer) {
#ifdef CUDA_ON_HOST
  return *static_cast<const uint4*>(pointer);
#else
  return __ldcs(static_cast<const uint4*>(pointer));
#endif
}

// 16 bytes that other threads will read again.
__device__ __forceinline__ uint4 load_pack(const void* pointer) {
  return *static_cast<const uint4*>(pointer);
}

// 16 bytes in one access; the compiler makes four of an assignment here and there.
__device__ __forceinline__ void store_pack(void* pointer, uint4 words) {
#ifdef CUDA_ON_HOST
  *static_cast<uint4*>(pointer) = words;
#else
  asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};"
               :
               : "l"(__cvta_generic_to_global(pointer)), "r"(words.x), "r"(words.y), "r"(words.z),
                 "r"(words.w)
               : "memory");
#endif
}

__device__ __forceinline__ void unpack(uint4 words, const f32*, float (&values)[4]) {
  values[0] = __uint_as_float(words.x);
  values[1] = __uint_as_float(words.y);
  values[2] = __uint_as_float(words.z);
  values[3] = __uint_as_float(words.w);
}

__device__ __forceinline__ void unpack(uint4 words, const f16*, float (&values)[8]) {
  const unsigned all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = widen(f16{static_cast<unsigned short>(all[i] & 0xffffu)});
    values[2 * i + 1] = widen(f16{static_cast<unsigned short>(all[i] >> 16)});
  }
}

__device__ __forceinline__ void unpack(uint4 words, const bf16*, float (&values)[8]) {
  const unsigned all[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    values[2 * i] = __uint_as_float(all[i] << 16);
    values[2 * i + 1] = __uint_as_float(all[i] & 0xffff0000u);
  }
}

// The values of 16 bytes as float: `float values[kPerPack<T>]; unpack<T>(words, values);`
template <typename T>
__device__ __forceinline__ void unpack(uint4 words, float (&values)[kPerPack<T>]) {
  unpack(words, static_cast<const T*>(nullptr), values);
}

// The values narrowed to T, as 16 bytes.
template <typename T>
__device__ __forceinline__ uint4 pack(const float (&values)[kPerPack<T>]);

template <>
__device__ __forceinline__ uint4 pack<f32>(const float (&values)[4]) {
  return uint4{__float_as_uint(values[0]), __float_as_uint(values[1]), __float_as_uint(values[2]),
               __float_as_uint(values[3])};
}

template <>
__device__ __forceinline__ uint4 pack<f16>(const float (&values)[8]) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = narrow<f16>(values[2 * i]).bits |
               static_cast<unsigned>(narrow<f16>(values[2 * i + 1]).bits) << 16;
  }
  return uint4{words[0], words[1], words[2], words[3]};
}

template <>
__device__ __forceinline__ uint4 pack<u8>(const float (&values)[16]) {
  unsigned words[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    words[i] = narrow<u8>(values[4 * i]) |
               static_cast<unsigned>(narrow<u8>(values[4 * i + 1])) << 8 |
               static_cast<unsigned>(narrow<u8>(values[4 * i + 2])) << 16 |
               static_cast<unsigned>(narrow<u8>(values[4 * i + 3])) << 24;
  }
  return uint4{words[0], words[1], words[2], words[3]};
}
