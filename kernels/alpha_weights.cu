// Grad-CAM++'s channel weights: w[b,c] = sum_n alpha * ReLU(G[b,c,n]), where
// alpha = G^2 / (2 * G^2 + D + epsilon), in two launches: the sum that D needs of a channel, then
// the weights. `epsilon` is 0, or that of the library whose weights are asked for.
//
//   the paper's   D = total * G^3, total = sum_n A. `totals` reads A once, `paper` G once
//   M3d-CAM's     D = sum_n A * G^3. `cubes` reads A and G once, `m3d_cam` reads G again (from the
//                 second-level cache as far as G fits)
//
// Each launch writes 4 to 8 bytes for each channel. Where several blocks sum a channel, each also
// writes 8 bytes for it, and the last of them reads these.
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

struct Totals {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 1;
  using Partial = float;
  struct Channel {};
  const SCALAR* tensors[1];
  float* totals;

  // The projection reads A again.
  static __device__ constexpr bool read_once(int) { return false; }
  __device__ __forceinline__ Channel channel(long long) const { return Channel{}; }
  static __device__ __forceinline__ void add(float (&sums)[1], const float (&values)[1],
                                             const Channel&) {
    sums[0] += values[0];
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    totals[row] = static_cast<float>(total);
  }
};

// A term is ReLU(G) / (2 + G * total + epsilon / G^2).
//
// About half of all gradients are not positive. Their terms are 0 without a division: the compiler's
// has a fast path, whose range check (FCHK) a numerator of 0 does not pass, and behind it a call that
// the whole warp waits for. So these lanes divide other numbers, and drop the quotient.
struct Paper {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 1;
  using Partial = float;
  struct Channel {
    // Both scaled by a power of 2 that brings the total below 4, so that no product overflows.
    float total;
    float two;
    // Not scaled: with the scale of a large total it would lose digits as a subnormal number. Half
    // of it, as its product with `two` is then scaled: to keep the scale itself takes 8 registers
    // more in channels last, which spill.
    float half_epsilon;
  };
  const SCALAR* tensors[1];
  const float* totals;
  float* weights;
  float half_epsilon;

  static __device__ constexpr bool read_once(int) { return true; }
  static __device__ __forceinline__ float scale(float total) {
    const unsigned exponent = min(__float_as_uint(total) >> 23 & 255u, 253u);
    return exponent > 127u ? __uint_as_float((254u - exponent) << 23) : 1.0f;
  }
  __device__ __forceinline__ Channel channel(long long row) const {
    const float total = totals[row];
    return Channel{total * scale(total), 2.0f * scale(total), half_epsilon};
  }
  static __device__ __forceinline__ void add(float (&sums)[1], const float (&values)[1],
                                             const Channel& channel) {
    // Not where it is NaN or -inf, whose quotient is NaN.
    constexpr float kLowest = -3.402823466e38f;
    const bool dropped = values[0] <= 0.0f && values[0] >= kLowest;
    const float gradient = dropped ? 1.0f : values[0];
    float denominator = gradient * channel.total + channel.two;
    // An epsilon of 0 is left out, and with it two divisions. With another one, a gradient below
    // 4e-23 makes the denominator infinite and the term 0, which is right: it is below
    // G^3 / epsilon = 1e-60. All threads take the same branch. Exact divisions would spill; these
    // are off by 2 units in the last place each.
    if (channel.half_epsilon > 0.0f) {
      const float part = __fdividef(__fdividef(channel.half_epsilon, gradient), gradient);
      denominator += part * channel.two;
    }
    float numerator = gradient;
    if (denominator == 0.0f) {
      // alpha = G^2, over the scale: `two` is a power of 2, and this is 2 / two.
      const float over_scale = __uint_as_float(0x7f800000u - __float_as_uint(channel.two));
      numerator = gradient * gradient * (gradient * over_scale);
      denominator = 1.0f;
    }
    const float term = numerator / denominator;
    sums[0] += dropped ? 0.0f : term;
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    // NaN where the total is not finite, which makes the terms 0, or is in none of them.
    weights[row] = static_cast<float>(total * scale(totals[row]) + 0.0f * totals[row]);
  }
};

// D, scaled; the epsilon is part of it. `scale` is the power of 2 for which scale * sqrt(|D|) lies
// in [1, 2), and `d` is D * scale^2. With both, G^2 / D is (scale * G)^2 / d, which float can hold
// for any D.
struct Scaled {
  float scale;
  float d;
};

struct Cubes {
  static constexpr int kTensors = 2;
  static constexpr int kSums = 1;
  // The cubes of gradients below 1e-13 or above 1e13 leave the range of float.
  using Partial = double;
  struct Channel {};
  const SCALAR* tensors[2];
  Scaled* scaled;
  double epsilon;

  // `m3d_cam` reads G again, next of all.
  static __device__ constexpr bool read_once(int tensor) { return tensor == 0; }
  __device__ __forceinline__ Channel channel(long long) const { return Channel{}; }
  static __device__ __forceinline__ void add(double (&sums)[1], const float (&values)[2],
                                             const Channel&) {
    const double gradient = values[1];
    sums[0] += values[0] * gradient * gradient * gradient;
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    const double d = total + epsilon;
    const long long biased = __double_as_longlong(d) >> 52 & 2047;
    // Clamped to the exponents of float. Beyond them, and where D is 0, every G^2 that is not 0 is
    // so far above or below D that the exact scale makes no difference.
    const long long half = d == 0.0 ? -126 : max(-126ll, min(126ll, (biased - 1023) >> 1));
    const double scale = __longlong_as_double((1023 - half) << 52);
    // An infinite D would make the terms 0 and hide it.
    const float result =
        biased == 2047 ? not_a_number() : static_cast<float>(d * scale * scale);
    scaled[row] = Scaled{static_cast<float>(scale), result};
  }
};

// A term is ReLU(G) * G^2 / (2 * G^2 + D); the epsilon is part of D.
struct M3dCam {
  static constexpr int kTensors = 1;
  static constexpr int kSums = 1;
  using Partial = float;
  using Channel = Scaled;
  const SCALAR* tensors[1];
  const Scaled* scaled;
  float* weights;

  static __device__ constexpr bool read_once(int) { return true; }
  __device__ __forceinline__ Channel channel(long long row) const { return scaled[row]; }
  static __device__ __forceinline__ void add(float (&sums)[1], const float (&values)[1],
                                             const Channel& channel) {
    // Clamp for square: d is below 4, so any larger value leaves the quotient at 1/2, and clamping
    // avoids infinity over infinity.
    constexpr float kLarge = 1ull << 60;
    const float gradient = values[0];
    const float ratio = gradient * channel.scale;
    float square = ratio * ratio;
    square = square < kLarge ? square : kLarge;
    // As in Paper, a numerator of 0 would take the slow path of the division. The term is 0 whatever
    // alpha is, and with 4 the denominator is not 0.
    square = gradient > 0.0f ? square : 4.0f;
    const float denominator = 2.0f * square + channel.d;
    float alpha = gradient * gradient;
    if (denominator != 0.0f) alpha = square / denominator;
    sums[0] += alpha * relu(gradient);
  }
  __device__ __forceinline__ void finish(long long row, int, double total) const {
    weights[row] = static_cast<float>(total);
  }
};

}  // namespace

CHANNEL_SUMS_ENTRIES(alpha_weights_totals, TOTALS_RESIDENT_BLOCKS, (Totals{{activation}, totals}),
                     const SCALAR* activation, float* totals)
CHANNEL_SUMS_ENTRIES(alpha_weights_paper, RESIDENT_BLOCKS,
                     (Paper{{gradient}, totals, weights, half_epsilon}), const SCALAR* gradient,
                     const float* totals, float* weights, float half_epsilon)
CHANNEL_SUMS_ENTRIES(alpha_weights_cubes, RESIDENT_BLOCKS,
                     (Cubes{{activation, gradient}, scaled, epsilon}), const SCALAR* activation,
                     const SCALAR* gradient, Scaled* scaled, double epsilon)
CHANNEL_SUMS_ENTRIES(alpha_weights_m3d_cam, RESIDENT_BLOCKS, (M3dCam{{gradient}, scaled, weights}),
                     const SCALAR* gradient, const Scaled* scaled, float* weights)
