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

  // The first `count` values, with zeros behind them.
  static __device__ __forceinline__ Read part(const SCALAR* from, long long count) {
    unsigned words[4] = {0, 0, 0, 0};
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      if (i < count) insert(words, i, from[i]);
    }
    return Read{uint4{words[0], words[1], words[2], words[3]}};
  }

  static __device__ __forceinline__ Read all(const SCALAR* from, bool aligned) {
    if (aligned) return Read{load_streaming(from)};
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

  static __device__ __forceinline__ Read all(const SCALAR* from, bool) { return Read{*from}; }

  __device__ __forceinline__ void widened(float (&values)[1]) const { values[0] = widen(value); }
};
