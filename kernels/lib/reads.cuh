// Reads of SCALAR: one value, or the values of 16 bytes, from aligned addresses and others.
#pragma once

#include "lib/scalar.cuh"

// Puts value `place` of 16 bytes, zeros there before, where it belongs.
__device__ __forceinline__ void insert(unsigned (&words)[4], int place, f32 value) {
  words[place] = __float_as_uint(value);
}

template <typename T>
__device__ __forceinline__ void insert(unsigned (&words)[4], int place, T value) {
  words[place / 2] |= static_cast<unsigned>(value.bits) << (place % 2 * 16);
}

// kWidth values as they are stored, so that those under way take few registers. kWidth is 1 or
// kPerPack<SCALAR>.
template <int kWidth>
struct Read {
  uint4 words;

  static __device__ __forceinline__ Read none() { return Read{uint4{0, 0, 0, 0}}; }

  // Values `stride` apart, of which `count` values from `from` on are there; zeros for those behind.
  static __device__ __forceinline__ Read part(const SCALAR* from, long long count,
                                              int stride = 1) {
    unsigned words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (i * stride < count) insert(words, i, from[i * stride]);
    }
    return Read{uint4{words[0], words[1], words[2], words[3]}};
  }

  // 16 bytes at an aligned address. `once`: nobody reads them again, so that they may leave the
  // cache first.
  static __device__ __forceinline__ Read pack(const SCALAR* from, bool once) {
    return Read{once ? load_streaming(from) : load_pack(from)};
  }

  static __device__ __forceinline__ Read all(const SCALAR* from, bool aligned, bool once = true) {
    if (aligned) return pack(from, once);
    return part(from, kWidth);
  }

  __device__ __forceinline__ void widened(float (&values)[kWidth]) const {
    unpack<SCALAR>(words, values);
  }
};

template <>
struct Read<1> {
  SCALAR value;

  static __device__ __forceinline__ Read none() { return Read{SCALAR{}}; }

  static __device__ __forceinline__ Read part(const SCALAR* from, long long count) {
    return count > 0 ? Read{*from} : none();
  }

  static __device__ __forceinline__ Read pack(const SCALAR* from, bool) { return Read{*from}; }

  static __device__ __forceinline__ Read all(const SCALAR* from, bool, bool = true) {
    return Read{*from};
  }

  __device__ __forceinline__ void widened(float (&values)[1]) const { values[0] = widen(value); }
};
