// Grad-CAM++'s channel weights: w[b,c] = sum_n alpha * ReLU(s[b,n] * G[b,c,n]), where
// alpha = G^2 / (2 * G^2 + D), in two launches: what D needs of a channel, then the weights.
//
//   the paper's   D = total * G^3, total = sum_n A. `totals` reads A once, `paper` G once
//   M3d-CAM's     D = sum_n A * G^3. `cubes` reads A and G once, `m3d_cam` reads G again (from the
//                 second-level cache as far as that reaches)
//
// s, 4 bytes for each voxel, is read for each channel in contiguous tensors (from a cache), and
// once for each 128 bytes of a voxel in others. Each launch writes 4 to 8 bytes for each channel;
// where a channel is summed by several blocks, these also write 8 bytes each for it, and the last
// of them reads those.
//
//   alpha_weights_*_short     contiguous, N small: `lanes` threads for each row; the first holds
//                             the result
//   alpha_weights_*_rows      contiguous: a block for each segment of a row; thread 0 of the last
//                             block of a row holds the result
//   alpha_weights_*_columns   channels last: a block for each strip of voxels and 128 bytes of each
//                             voxel, a thread for 16 bytes (or one value, where C is no multiple of
//                             them); the first row of threads of the last block of a part holds the
//                             results
#include "lib/channel_sums.cuh"
#include "lib/extremes.cuh"

namespace {

__device__ __forceinline__ float not_a_number() { return __uint_as_float(0x7fc00000u); }

// ReLU that leaves NaN and makes -inf one, so that neither is lost.
__device__ __forceinline__ float positive(float value) {
  return value * (value > 0.0f ? 1.0f : 0.0f);
}

// Without a score of their own, voxels count alike.
__device__ __forceinline__ float score_of(const float* score, long long voxel) {
  return score == nullptr ? 1.0f : score[voxel];
}

struct Totals {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 1;
  using Partial = float;
  struct Channel {};
  const SCALAR* tensors[1];
  float* totals;

  __device__ __forceinline__ Channel channel(long long) const { return Channel{}; }
  __device__ __forceinline__ float factor(long long) const { return 1.0f; }
  static __device__ __forceinline__ void add(float (&sums)[1], const float (&values)[1],
                                             const Channel&, float) {
    sums[0] += values[0];
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    totals[row] = static_cast<float>(total);
  }
};

// A term is ReLU(s * G) / (2 + G * total).
struct Paper {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 1;
  using Partial = float;
  // Both times a power of 2 that brings the total below 4, so that no product leaves the range.
  struct Channel {
    float total;
    float two;
  };
  const SCALAR* tensors[1];
  const float* score;
  const float* totals;
  float* weights;

  static __device__ __forceinline__ float scale(float total) {
    const unsigned exponent = min(__float_as_uint(total) >> 23 & 255u, 253u);
    return exponent > 127u ? __uint_as_float((254u - exponent) << 23) : 1.0f;
  }
  __device__ __forceinline__ Channel channel(long long row) const {
    const float total = totals[row];
    // Not infinite, which would make terms 0.
    if (!is_finite(total)) return Channel{not_a_number(), 2.0f};
    return Channel{total * scale(total), 2.0f * scale(total)};
  }
  __device__ __forceinline__ float factor(long long voxel) const { return score_of(score, voxel); }
  static __device__ __forceinline__ void add(float (&sums)[1], const float (&values)[1],
                                             const Channel& channel, float factor) {
    const float gradient = values[0];
    const float rectified = positive(factor * gradient);
    const float denominator = gradient * channel.total + channel.two;
    if (denominator == 0.0f) {
      // alpha = G^2, over the scale.
      sums[0] += rectified * gradient * (gradient * 2.0f / channel.two);
    } else {
      sums[0] += rectified / denominator;
    }
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    weights[row] = static_cast<float>(total * scale(totals[row]));
  }
};

// A power of 2 that times sqrt(|D|) lies in [1, 2), and D times its square: so G^2 / D can be had
// in float of any D.
struct Scaled {
  float scale;
  float d;
};

struct Cubes {
  static constexpr int kTensors = 2;
  static constexpr int kSums = 1;
  // Cubes leave the range of float soon, at 1e-13 and 1e13.
  using Partial = double;
  struct Channel {};
  const SCALAR* tensors[2];
  Scaled* scaled;

  __device__ __forceinline__ Channel channel(long long) const { return Channel{}; }
  __device__ __forceinline__ float factor(long long) const { return 1.0f; }
  static __device__ __forceinline__ void add(double (&sums)[1], const float (&values)[2],
                                             const Channel&, float) {
    const double gradient = values[1];
    sums[0] += values[0] * gradient * gradient * gradient;
  }
  __device__ __forceinline__ void finish(long long row, int, double d) const {
    const long long biased = __double_as_longlong(d) >> 52 & 2047;
    // Beyond what the exponent of a float can make up for, and where D is 0, all that differs from
    // 0 is far above D, or far below.
    const long long half = d == 0.0 ? -126 : max(-126ll, min(126ll, (biased - 1023) >> 1));
    const double scale = __longlong_as_double((1023 - half) << 52);
    // Not infinite where D is, which would make terms 0.
    const float result =
        biased == 2047 ? not_a_number() : static_cast<float>(d * scale * scale);
    scaled[row] = Scaled{static_cast<float>(scale), result};
  }
};

// A term is ReLU(s * G) * G^2 / (2 * G^2 + D).
struct M3dCam {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 1;
  using Partial = float;
  using Channel = Scaled;
  const SCALAR* tensors[1];
  const float* score;
  const Scaled* scaled;
  float* weights;

  __device__ __forceinline__ Channel channel(long long row) const { return scaled[row]; }
  __device__ __forceinline__ float factor(long long voxel) const { return score_of(score, voxel); }
  static __device__ __forceinline__ void add(float (&sums)[1], const float (&values)[1],
                                             const Channel& channel, float factor) {
    // So far above D, which is below 4, that it does not matter how far.
    constexpr float kLarge = 1ull << 60;
    const float gradient = values[0];
    const float ratio = gradient * channel.scale;
    float square = ratio * ratio;
    square = square < kLarge ? square : kLarge;
    const float denominator = 2.0f * square + channel.d;
    float alpha = gradient * gradient;
    if (denominator != 0.0f) alpha = square / denominator;
    sums[0] += alpha * positive(factor * gradient);
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    weights[row] = static_cast<float>(total);
  }
};

}  // namespace

#define KERNEL(name, blocks) \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, blocks) ENTRY(alpha_weights_##name)
// The three entries of an op, of which `...` are the first parameters; so many blocks fit a
// multiprocessor.
#define ENTRIES(name, blocks, op, ...)                                                             \
  KERNEL(name##_short, blocks)(__VA_ARGS__, long long channels, long long voxels, long long rows,  \
                               int lanes) {                                                        \
    sum_short_rows(op, rows, channels, voxels, lanes);                                             \
  }                                                                                                \
  KERNEL(name##_rows, blocks)(__VA_ARGS__, long long channels, long long voxels,                   \
                              long long segment, int segments, double* partials,                   \
                              unsigned* counters) {                                                \
    sum_long_rows(op, channels, voxels, segment, segments, partials, counters);                    \
  }                                                                                                \
  KERNEL(name##_columns, blocks)(__VA_ARGS__, long long channels, long long voxels,                \
                                 long long strip, int lanes, double* partials,                     \
                                 unsigned* counters) {                                             \
    sum_columns(op, channels, voxels, strip, lanes, partials, counters);                           \
  }

ENTRIES(totals, 4, (Totals{{activation}, totals}), const SCALAR* activation, float* totals)
// What is known of each of 8 channels, or the sums in double, take 16 registers beside: up to 80 of
// them and no spills.
ENTRIES(paper, 3, (Paper{{gradient}, score, totals, weights}), const SCALAR* gradient,
        const float* score, const float* totals, float* weights)
ENTRIES(cubes, 3, (Cubes{{activation, gradient}, scaled}), const SCALAR* activation,
        const SCALAR* gradient, Scaled* scaled)
ENTRIES(m3d_cam, 3, (M3dCam{{gradient}, score, scaled, weights}), const SCALAR* gradient,
        const float* score, const Scaled* scaled, float* weights)
