// Finished maps: values of a range brought to [0, 1], narrowed and stored, four at a time.
#pragma once

#include "lib/extremes.cuh"
#include "lib/scalar.cuh"

// Rescale of src/ops/rescale.rs, to the same bits.
struct Rescale {
  float scale;
  float offset;
  float factor;

  // NaN becomes 0.
  __device__ __forceinline__ float operator()(float value) const {
    // The product is exact, as `scale` is a power of two.
    return __saturatef(fmaf(value, scale, offset) * factor);
  }
};

__device__ __forceinline__ Rescale rescale_of(Extremes extremes) {
  constexpr float kSmall = 1.0f / (1ull << 32) / (1ull << 32);
  // Constant maps, and maps without a finite value, whose range is empty.
  if (!(extremes.minimum < extremes.maximum)) return Rescale{0.0f, 0.0f, 0.0f};
  const float width = extremes.maximum - extremes.minimum;
  const float scale = width > 1.0f / kSmall ? kSmall : width < kSmall ? 1.0f / kSmall : 1.0f;
  const float offset = -scale * extremes.minimum;
  const float range = fmaf(scale, extremes.maximum, offset);
  const float factor = __fdiv_rn(1.0f, range);
  // Rounded up so far that the maximum becomes 1 or more.
  const bool up = __fmul_rn(range, factor) < 1.0f;
  return Rescale{scale, offset, up ? __uint_as_float(__float_as_uint(factor) + 1) : factor};
}

__device__ __forceinline__ void store_four(f32* out, const float (&values)[4]) {
  store_pack(out, pack<f32>(values));
}

__device__ __forceinline__ void store_four(f16* out, const float (&values)[4]) {
  const auto two = [](float low, float high) {
    return narrow<f16>(low).bits | static_cast<unsigned>(narrow<f16>(high).bits) << 16;
  };
  *reinterpret_cast<uint2*>(out) = uint2{two(values[0], values[1]), two(values[2], values[3])};
}

__device__ __forceinline__ void store_four(u8* out, const float (&values)[4]) {
  unsigned word = 0;
#pragma unroll
  for (int i = 0; i < 4; ++i) word |= static_cast<unsigned>(narrow<u8>(values[i])) << (8 * i);
  *reinterpret_cast<unsigned*>(out) = word;
}

// How many values an address lies behind a multiple of four values.
template <typename T>
__device__ __forceinline__ int behind_four(const T* place) {
  return static_cast<int>(reinterpret_cast<size_t>(place) / sizeof(T) % 4);
}

// Stores the voxels of a sample, on [0, 1] if there is a range.
template <typename T>
struct Store {
  T* out;
  bool rescaled;
  Rescale rescale;

  __device__ __forceinline__ Store(T* sample, const Extremes* extremes)
      : out(sample), rescaled(extremes != nullptr), rescale() {
    if (rescaled) rescale = rescale_of(*extremes);
  }

  // Aligns groups of four, so that each is one store.
  __device__ __forceinline__ int shift(long long start) const { return behind_four(out + start); }

  // Stores voxels `first` to `first + 3` of the `voxels` from `start` on; those outside are skipped.
  __device__ __forceinline__ void four(long long start, int first, int voxels,
                                       float (&values)[4]) const {
    if (rescaled) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[i] = rescale(values[i]);
    }
    T* place = out + start + first;
    if (first >= 0 && first + 4 <= voxels) {
      store_four(place, values);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= 0 && first + i < voxels) place[i] = narrow<T>(values[i]);
    }
  }
};
