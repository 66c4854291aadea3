// Sums over the channels of each voxel of one or two tensors, in either layout: a map, and its
// extremes. An op says of what:
//
//   struct Op {
//     static constexpr int kTensors;      // that are read: 1 or 2
//     const SCALAR* tensors[kTensors];
//     const float* weights;               // (B, C), or null for `weight` everywhere
//     float weight;
//     bool rectify;                       // the sums
//     float term(const float (&values)[kTensors], float weight) const;
//   };
//
// Which values a thread adds, and in which order, is fixed by the shape of a sample alone, so that
// a batch gives the bits of its samples, whatever the addresses.
#pragma once

#include "lib/extremes.cuh"
#include "lib/last_block.cuh"
#include "lib/reads.cuh"
#include "lib/reduce.cuh"

// What all blocks share: where the results go, and the memory between blocks.
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

// The weights of kWidth channels, at once where the address lets.
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

// A finished sum: what is written of it, and what the extremes take of it.
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

// The extremes of a sample from those of all threads of all blocks of its tiles.
__device__ __forceinline__ void reduce_extremes(Extremes own, const MapOutput& to, long long b,
                                                unsigned tile, unsigned tiles) {
  Extremes all = block_reduce<BLOCK_THREADS>(own, no_extremes(), Merge());
  if (tiles > 1) {
    if (threadIdx.x == 0) to.of_tile[b * tiles + tile] = all;
    if (!is_last_block(to.counters + b, tiles)) return;
    all = no_extremes();
    for (unsigned i = threadIdx.x; i < tiles; i += BLOCK_THREADS) {
      all = Merge()(all, to.of_tile[b * tiles + i]);
    }
    all = block_reduce<BLOCK_THREADS>(all, no_extremes(), Merge());
  }
  if (threadIdx.x == 0) to.extremes[b] = all;
}

// kWidth values that lie side by side, at once where the address lets.
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

// Adds up the slices of a tile, one after the other; those of slice 0 hold the sums.
template <int kWidth>
__device__ __forceinline__ void add_slices(float (&sums)[kWidth], int threads) {
  __shared__ float of_thread[kWidth][BLOCK_THREADS];
  if (threads == BLOCK_THREADS) return;
  // Not while one still reads those of the last call.
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
  // Channels that are added up by themselves, so that the longest chain of additions is a quarter.
  constexpr int kGroup = 4;
  constexpr int kReads = kWidth == 1 ? 2 * kGroup : kGroup;
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
      // Without a branch for each, so that all are under way at once.
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
  reduce_extremes(extremes, to, b, tile, tiles);
}

// Channels last: `lanes` threads, a power of 2 up to 32, for each voxel, kVoxels voxels and kPacks
// groups of kWidth channels at a time. A block takes `steps` times kVoxels for each `lanes`
// threads. kWidth divides C.
template <int kWidth, int kVoxels, int kPacks, typename Op>
__device__ __forceinline__ void sum_voxels(const Op& op, const MapOutput& to, long long channels,
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
      // Without a branch for each, so that all are under way at once.
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
    // All lanes of the warp are here again.
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
  reduce_extremes(extremes, to, b, tile, tiles);
}

// Contiguous: 16 bytes at a time where N is a multiple of them.
template <typename Op>
__device__ __forceinline__ void sum_rows(const Op& op, const MapOutput& to, long long channels,
                                         long long voxels, int threads, unsigned splits) {
  if (voxels % kPerPack<SCALAR> == 0) {
    sum_rows<kPerPack<SCALAR>>(op, to, channels, voxels, threads, splits);
  } else {
    sum_rows<1>(op, to, channels, voxels, threads, splits);
  }
}

// Channels last: 16 bytes at a time where C is a multiple of them; one of each of several voxels.
template <typename Op>
__device__ __forceinline__ void sum_voxels(const Op& op, const MapOutput& to, long long channels,
                                           long long voxels, int lanes, unsigned steps) {
  if (channels % kPerPack<SCALAR> == 0) {
    sum_voxels<kPerPack<SCALAR>, VOXEL_READS, 1>(op, to, channels, voxels, lanes, steps);
  } else {
    sum_voxels<1, VOXEL_READS, 1>(op, to, channels, voxels, lanes, steps);
  }
}

// Channels last, few voxels, C a multiple of 16 bytes: several of these of one voxel.
template <typename Op>
__device__ __forceinline__ void sum_few_voxels(const Op& op, const MapOutput& to,
                                               long long channels, long long voxels, int lanes,
                                               unsigned steps) {
  sum_voxels<kPerPack<SCALAR>, 1, VOXEL_READS>(op, to, channels, voxels, lanes, steps);
}
