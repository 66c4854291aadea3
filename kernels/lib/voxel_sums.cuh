// Sums over the channels of each voxel of one or two tensors, in either layout: a map, and its
// extremes. An op says what the terms are:
//
//   struct Op {
//     static constexpr int kTensors;      // read: 1 or 2
//     const SCALAR* tensors[kTensors];
//     const float* weights;               // (B, C), or null for `weight` everywhere
//     float weight;
//     bool rectify;                       // whether ReLU follows the sum
//     float term(const float (&values)[kTensors], float weight) const;
//   };
//
// Which values a thread sums, and in which order, is fixed by the shape of a sample alone, so that a
// batch gives the bits of its samples, at any address.
//
// How a sample is split among blocks, and the launch numbers, are in src/ops/voxel_sums/cuda.rs.
#pragma once

#include "lib/extremes.cuh"
#include "lib/last_block.cuh"
#include "lib/reads.cuh"
#include "lib/reduce.cuh"

// Where the results go, and the memory in which blocks hand over partial results.
struct MapOutput {
  float* map;                // (B, N)
  Extremes* extremes;        // (B)
  Extremes* of_tile;         // for each tile of each sample
  float* partials;           // (B, splits, N), where a tile's channels are split
  unsigned* counters;        // B, and then one for each tile of each sample
};

template <typename Op>
__device__ __forceinline__ bool are_pack_aligned(const Op& op) {
  bool aligned = true;
#pragma unroll
  for (int t = 0; t < Op::kTensors; ++t) aligned = aligned && is_pack_aligned(op.tensors[t]);
  return aligned;
}

template <typename Op>
__device__ __forceinline__ float weight_of(const Op& op, long long row) {
  return op.weights == nullptr ? op.weight : op.weights[row];
}

// The weights of kWidth channels, in loads of 16 bytes if the address is aligned.
template <int kWidth, typename Op>
__device__ __forceinline__ void read_weights(float (&weights)[kWidth], const Op& op,
                                             long long row) {
  if (kWidth > 1 && op.weights != nullptr && is_pack_aligned(op.weights + row)) {
#pragma unroll
    for (int j = 0; j + 3 < kWidth; j += 4) {
      float four[4];
      unpack<f32>(load_pack(op.weights + row + j), four);
#pragma unroll
      for (int i = 0; i < 4; ++i) weights[j + i] = four[i];
    }
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) weights[j] = weight_of(op, row + j);
  }
}

// The value that a finished sum becomes; counts it in the extremes.
template <typename Op>
__device__ __forceinline__ float finished(const Op& op, float sum, Extremes& extremes) {
  if (!is_finite(sum)) ++extremes.not_finite;
  // Not fmaxf, which would turn NaN into 0.
  const float value = op.rectify && sum <= 0.0f ? 0.0f : sum;
  if (is_finite(value)) {
    extremes.minimum = fminf(extremes.minimum, value);
    extremes.maximum = fmaxf(extremes.maximum, value);
  }
  return value;
}

// Writes the extremes of sample `b` once all of its tiles are done.
__device__ __forceinline__ void finish_extremes(Extremes found, const MapOutput& to, long long b,
                                                unsigned tile, unsigned tiles) {
  Extremes* of_sample = to.of_tile + b * tiles;
  if (merge_blocks<BLOCK_THREADS>(found, of_sample, to.counters + b, tile, tiles)) {
    to.extremes[b] = found;
  }
}

// Stores kWidth adjacent values, 16 bytes at a time if the address is aligned.
template <int kWidth>
__device__ __forceinline__ void store_floats(float* to, const float (&values)[kWidth]) {
  if (kWidth > 1 && is_pack_aligned(to)) {
#pragma unroll
    for (int j = 0; j + 3 < kWidth; j += 4) {
      const float four[4] = {values[j], values[j + 1], values[j + 2], values[j + 3]};
      store_pack(to + j, pack<f32>(four));
    }
  } else {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) to[j] = values[j];
  }
}

// Adds up the slices of a tile, one after the other; the threads of slice 0 hold the sums.
template <int kWidth>
__device__ __forceinline__ void add_slices(float (&sums)[kWidth], int threads) {
  __shared__ float of_thread[kWidth][BLOCK_THREADS];
  if (threads == BLOCK_THREADS) return;
  // Before this, other threads may still read the sums of the last call.
  __syncthreads();
#pragma unroll
  for (int j = 0; j < kWidth; ++j) of_thread[j][threadIdx.x] = sums[j];
  __syncthreads();
  if (threadIdx.x >= threads) return;
  for (int other = threadIdx.x + threads; other < BLOCK_THREADS; other += threads) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j] += of_thread[j][other];
  }
}

// Contiguous: a block for each tile of `threads` times kWidth voxels and each of `splits` parts of
// the channels; the BLOCK_THREADS / threads slices of a block part them again. kWidth divides N.
template <int kWidth, typename Op>
__device__ __forceinline__ void sum_rows(const Op& op, const MapOutput& to, long long channels,
                                         long long voxels, int threads, unsigned splits) {
  // Groups of four channels are summed by themselves first, which shortens the longest chain of
  // additions to a quarter. Not a launch number: Rust does not know it.
  constexpr int kGroup = 4;
  constexpr int kReads = kWidth == 1 ? VALUE_CHANNELS : PACK_CHANNELS;
  static_assert(kReads % kGroup == 0, "whole groups");
  const long long tile_voxels = static_cast<long long>(threads) * kWidth;
  const unsigned tiles = (voxels + tile_voxels - 1) / tile_voxels;
  const unsigned tile = blockIdx.x % tiles;
  const unsigned split = blockIdx.x / tiles % splits;
  const long long b = blockIdx.x / tiles / splits;
  const int slices = BLOCK_THREADS / threads;
  const int slice = threadIdx.x / threads;
  const long long n = tile * tile_voxels + threadIdx.x % threads * kWidth;
  const bool within = n < voxels;
  const bool aligned = are_pack_aligned(op);
  const long long part = ((channels + kReads - 1) / kReads + splits - 1) / splits * kReads;
  const long long end = min(channels, (split + 1) * part);

  float sums[kWidth] = {};
  if (within) {
    for (long long c = split * part + slice * kReads; c < end; c += slices * kReads) {
      const long long row = b * channels + c;
      Read<kWidth> reads[kReads][Op::kTensors];
      float weights[kReads];
      // One branch for all loads: with one each, they would wait for each other.
      if (aligned && c + kReads <= end) {
#pragma unroll
        for (int i = 0; i < kReads; ++i) {
          weights[i] = weight_of(op, row + i);
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) {
            reads[i][t] = Read<kWidth>::all(op.tensors[t] + (row + i) * voxels + n, true);
          }
        }
      } else {
#pragma unroll
        for (int i = 0; i < kReads; ++i) {
          const bool is_channel = c + i < end;
          weights[i] = is_channel ? weight_of(op, row + i) : 0.0f;
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) {
            const SCALAR* values = op.tensors[t] + (row + i) * voxels + n;
            reads[i][t] = is_channel ? Read<kWidth>::all(values, aligned) : Read<kWidth>::none();
          }
        }
      }
#pragma unroll
      for (int group = 0; group < kReads; group += kGroup) {
        float own[kWidth] = {};
#pragma unroll
        for (int i = group; i < group + kGroup; ++i) {
          float values[Op::kTensors][kWidth];
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) reads[i][t].widened(values[t]);
#pragma unroll
          for (int j = 0; j < kWidth; ++j) {
            float of_voxel[Op::kTensors];
#pragma unroll
            for (int t = 0; t < Op::kTensors; ++t) of_voxel[t] = values[t][j];
            own[j] += op.term(of_voxel, weights[i]);
          }
        }
#pragma unroll
        for (int j = 0; j < kWidth; ++j) sums[j] += own[j];
      }
    }
  }
  add_slices(sums, threads);
  if (splits > 1) {
    float* partials = to.partials + b * splits * voxels + n;
    if (within && slice == 0) store_floats(partials + split * voxels, sums);
    const unsigned samples = gridDim.x / tiles / splits;
    if (!is_last_block(to.counters + samples + b * tiles + tile, splits)) return;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j] = 0.0f;
    for (unsigned i = slice; within && i < splits; i += slices) {
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sums[j] += partials[i * voxels + j];
    }
    add_slices(sums, threads);
  }
  Extremes extremes = no_extremes();
  if (within && slice == 0) {
#pragma unroll
    for (int j = 0; j < kWidth; ++j) sums[j] = finished(op, sums[j], extremes);
    store_floats(to.map + b * voxels + n, sums);
  }
  finish_extremes(extremes, to, b, tile, tiles);
}

// Channels last: `lanes` threads, a power of 2 up to 32, for each voxel, kVoxels voxels and kPacks
// groups of kWidth channels at a time. A block takes `steps` times kVoxels for each `lanes`
// threads. kWidth divides C.
template <int kWidth, int kVoxels, int kPacks, typename Op>
__device__ __forceinline__ void sum_columns(const Op& op, const MapOutput& to, long long channels,
                                           long long voxels, int lanes, unsigned steps) {
  const int groups = channels / kWidth;
  const int teams = BLOCK_THREADS / lanes;
  const int team = threadIdx.x / lanes;
  const int lane = threadIdx.x % lanes;
  const long long tile_voxels = static_cast<long long>(teams) * kVoxels * steps;
  const unsigned tiles = (voxels + tile_voxels - 1) / tile_voxels;
  const unsigned tile = blockIdx.x % tiles;
  const long long b = blockIdx.x / tiles;
  const long long stride = teams * channels;
  const bool aligned = are_pack_aligned(op);

  Extremes extremes = no_extremes();
  for (unsigned step = 0; step < steps; ++step) {
    const long long first = tile * tile_voxels + (step * kVoxels) * teams + team;
    const long long start = (b * voxels + first) * channels;
    float sums[kVoxels] = {};
    for (int from = lane; from < groups; from += kPacks * lanes) {
      Read<kWidth> reads[kPacks][kVoxels][Op::kTensors];
      const bool whole = from + (kPacks - 1) * lanes < groups &&
                         first + static_cast<long long>(kVoxels - 1) * teams < voxels;
      // One branch for all loads: with one each, they would wait for each other.
      if (aligned && whole) {
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
#pragma unroll
          for (int v = 0; v < kVoxels; ++v) {
#pragma unroll
            for (int t = 0; t < Op::kTensors; ++t) {
              const SCALAR* values = op.tensors[t] + start + (from + p * lanes) * kWidth;
              reads[p][v][t] = Read<kWidth>::all(values + v * stride, true);
            }
          }
        }
      } else {
#pragma unroll
        for (int p = 0; p < kPacks; ++p) {
          const int group = from + p * lanes;
#pragma unroll
          for (int v = 0; v < kVoxels; ++v) {
            const bool within = group < groups && first + v * teams < voxels;
#pragma unroll
            for (int t = 0; t < Op::kTensors; ++t) {
              const SCALAR* values = op.tensors[t] + start + group * kWidth;
              reads[p][v][t] =
                  within ? Read<kWidth>::all(values + v * stride, aligned) : Read<kWidth>::none();
            }
          }
        }
      }
#pragma unroll
      for (int p = 0; p < kPacks; ++p) {
        const int group = from + p * lanes;
        float weights[kWidth] = {};
        if (group < groups) read_weights(weights, op, b * channels + group * kWidth);
#pragma unroll
        for (int v = 0; v < kVoxels; ++v) {
          float values[Op::kTensors][kWidth];
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) reads[p][v][t].widened(values[t]);
          float own = 0.0f;
#pragma unroll
          for (int j = 0; j < kWidth; ++j) {
            float of_channel[Op::kTensors];
#pragma unroll
            for (int t = 0; t < Op::kTensors; ++t) of_channel[t] = values[t][j];
            own += op.term(of_channel, weights[j]);
          }
          sums[v] += own;
        }
      }
    }
    // Here the whole warp has converged again, which the shuffles need.
    for (int mask = lanes / 2; mask > 0; mask /= 2) {
#pragma unroll
      for (int v = 0; v < kVoxels; ++v) sums[v] += shuffle_xor(sums[v], mask);
    }
    if (lane == 0) {
#pragma unroll
      for (int v = 0; v < kVoxels; ++v) {
        const long long n = first + v * teams;
        if (n < voxels) to.map[b * voxels + n] = finished(op, sums[v], extremes);
      }
    }
  }
  finish_extremes(extremes, to, b, tile, tiles);
}

// Contiguous: a thread loads 16 bytes at a time if N is a multiple of them, else one value.
template <typename Op>
__device__ __forceinline__ void sum_rows(const Op& op, const MapOutput& to, long long channels,
                                         long long voxels, int threads, unsigned splits) {
  if (voxels % kPerPack<SCALAR> == 0) {
    sum_rows<kPerPack<SCALAR>>(op, to, channels, voxels, threads, splits);
  } else {
    sum_rows<1>(op, to, channels, voxels, threads, splits);
  }
}

// Channels last: a thread loads one pack (or value) of each of VOXEL_READS voxels at a time.
template <typename Op>
__device__ __forceinline__ void sum_columns(const Op& op, const MapOutput& to, long long channels,
                                           long long voxels, int lanes, unsigned steps) {
  if (channels % kPerPack<SCALAR> == 0) {
    sum_columns<kPerPack<SCALAR>, VOXEL_READS, 1>(op, to, channels, voxels, lanes, steps);
  } else {
    sum_columns<1, VOXEL_READS, 1>(op, to, channels, voxels, lanes, steps);
  }
}

// Channels last, few voxels, C a multiple of 16 bytes: a thread loads VOXEL_READS packs of one voxel
// at a time.
template <typename Op>
__device__ __forceinline__ void sum_few_columns(const Op& op, const MapOutput& to,
                                               long long channels, long long voxels, int lanes,
                                               unsigned steps) {
  sum_columns<kPerPack<SCALAR>, 1, VOXEL_READS>(op, to, channels, voxels, lanes, steps);
}

// The three entries of an op whose parameters are `...`, with so many blocks on each multiprocessor.
#define VOXEL_SUMS_PARAMETERS \
  float *map, Extremes *extremes, Extremes *of_tile, float *partials, unsigned *counters
#define VOXEL_SUMS_ENTRY(name, resident_blocks) \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, resident_blocks) ENTRY(name)
#define VOXEL_SUMS_ENTRIES(name, op, ...)                                                           \
  VOXEL_SUMS_ENTRY(name##_rows, ROWS_RESIDENT_BLOCKS)                                               \
  (__VA_ARGS__, long long channels, long long voxels, int threads, int splits,                      \
   VOXEL_SUMS_PARAMETERS) {                                                                         \
    sum_rows(op, MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, threads,  \
             splits);                                                                               \
  }                                                                                                 \
  VOXEL_SUMS_ENTRY(name##_columns, RESIDENT_BLOCKS)                                                 \
  (__VA_ARGS__, long long channels, long long voxels, int lanes, int steps,                         \
   VOXEL_SUMS_PARAMETERS) {                                                                         \
    sum_columns(op, MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels, lanes, \
                steps);                                                                             \
  }                                                                                                 \
  VOXEL_SUMS_ENTRY(name##_few_columns, RESIDENT_BLOCKS)                                             \
  (__VA_ARGS__, long long channels, long long voxels, int lanes, int steps,                         \
   VOXEL_SUMS_PARAMETERS) {                                                                         \
    sum_few_columns(op, MapOutput{map, extremes, of_tile, partials, counters}, channels, voxels,    \
                    lanes, steps);                                                                  \
  }
