// What a chain tells of each sample's map: its range, what was not finite, whether its weights are
// rounding noise, and whether the gradient behind a map of zeros is zero everywhere; see
// src/ops/summary.
//
// Reads weights, magnitudes and extremes once, and the gradient only of a sample whose map is 0
// everywhere. A block for each sample; thread 0 holds the result.

#include "lib/extremes.cuh"
#include "lib/scalar.cuh"

// SampleSummary of src/ops/summary/mod.rs.
struct SampleSummary {
  float minimum;
  float maximum;
  unsigned weights_not_finite;
  unsigned layer_not_finite;
  unsigned map_not_finite;
  unsigned weights_cancel;
  unsigned zero_gradient;
  unsigned unused;
};

struct Greater {
  __device__ __forceinline__ unsigned long long operator()(unsigned long long a,
                                                           unsigned long long b) const {
    return a > b ? a : b;
  }
};

// `weights`, `magnitudes` (both `channels` values a sample) and `gradient` (`elements` values a
// sample) may be null. `layer` are the extremes of the map on the layer's grid, `finished` those of
// the finished map.
extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, RESIDENT_BLOCKS)
    ENTRY(summary)(const SCALAR* gradient, const float* weights, const float* magnitudes,
                   const Extremes* layer, const Extremes* finished, SampleSummary* summaries,
                   long long channels, long long elements, double noise) {
  const long long sample = blockIdx.x;
  unsigned not_finite = 0;
  // The magnitude of a weight above its channel: the greatest of these is the greatest weight, of the
  // last channel that has it.
  unsigned long long greatest = 0;
  if (weights != nullptr) {
    for (long long c = threadIdx.x; c < channels; c += BLOCK_THREADS) {
      const float weight = weights[sample * channels + c];
      not_finite += is_finite(weight) ? 0u : 1u;
      const unsigned long long magnitude = __float_as_uint(weight) & 0x7fffffffu;
      greatest = Greater()(greatest, magnitude << 32 | static_cast<unsigned>(c));
    }
  }
  not_finite = block_reduce<BLOCK_THREADS>(not_finite, 0u, Sum());
  greatest = block_reduce<BLOCK_THREADS>(greatest, 0ull, Greater());

  const Extremes map = finished[sample];
  const bool is_zero = map.minimum == 0.0f && map.maximum == 0.0f;
  int any = 0;
  if (is_zero && gradient != nullptr) {
    for (long long i = threadIdx.x; i < elements && !any; i += BLOCK_THREADS) {
      any = widen(gradient[sample * elements + i]) != 0.0f;
    }
    any = __syncthreads_or(any);
  }

  if (threadIdx.x != 0) return;
  bool cancel = false;
  if (weights != nullptr && magnitudes != nullptr) {
    const long long channel = static_cast<unsigned>(greatest);
    const double magnitude = magnitudes[sample * channels + channel];
    cancel = static_cast<double>(__uint_as_float(static_cast<unsigned>(greatest >> 32))) <
             noise * magnitude;
  }
  summaries[sample] = SampleSummary{
      map.minimum,    map.maximum,     not_finite,
      layer[sample].not_finite,        map.not_finite, cancel ? 1u : 0u,
      is_zero && gradient != nullptr && !any ? 1u : 0u, 0u};
}
