// Sums over the voxels of each channel of one or two tensors, in either layout. An op says what the
// terms are:
//
//   struct Op {
//     static constexpr int kTensors;     // read: 1 or 2
//     static constexpr int kSums;        // made of each channel
//     using Partial = float;             // type of a thread's sums
//     struct Channel;                    // what all terms of a channel share
//     const SCALAR* tensors[kTensors];
//     static constexpr bool read_once(int tensor);   // no: another kernel reads it next
//     Channel channel(long long row) const;          // row = b * C + c
//     static void add(Partial (&sums)[kSums], const float (&values)[kTensors], const Channel&);
//     void finish(long long row, int sum, double total) const;
//   };
//
// Values behind the end are read as 0, and `add` must add 0 for them. A thread sums few values in
// Partial; blocks of one channel are summed in double. Which values a thread sums is fixed by the
// shape of a sample alone, so that a batch gives the bits of its samples, at any address.
//
// How a sample is split among blocks, and the launch numbers, are in src/ops/channel_sums/cuda.rs.
#pragma once

#include "lib/last_block.cuh"
#include "lib/reads.cuh"
#include "lib/reduce.cuh"

// Loads of each tensor that a thread has under way.
template <typename Op>
constexpr int kPackReads = PACK_READS / Op::kTensors;
template <typename Op>
constexpr int kValueReads = VALUE_READS / Op::kTensors;

template <typename Op, int kWidth>
__device__ __forceinline__ void add_values(typename Op::Partial (&sums)[Op::kSums],
                                           const Read<kWidth> (&reads)[Op::kTensors],
                                           const typename Op::Channel& channel) {
  float values[Op::kTensors][kWidth];
#pragma unroll
  for (int t = 0; t < Op::kTensors; ++t) reads[t].widened(values[t]);
  // A pack is summed by itself first: the longest chain of additions is then shorter.
  typename Op::Partial own[Op::kSums] = {};
#pragma unroll
  for (int i = 0; i < kWidth; ++i) {
    float of_voxel[Op::kTensors];
#pragma unroll
    for (int t = 0; t < Op::kTensors; ++t) of_voxel[t] = values[t][i];
    Op::add(own, of_voxel, channel);
  }
#pragma unroll
  for (int k = 0; k < Op::kSums; ++k) sums[k] += own[k];
}

// Contiguous, N small: `lanes` threads, a power of 2 up to 32, for each row. kWidth divides N.
template <int kWidth, typename Op>
__device__ __forceinline__ void sum_short_rows(const Op& op, long long voxels, long long rows,
                                               int lanes) {
  constexpr int kReads = kWidth == 1 ? kValueReads<Op> : kPackReads<Op>;
  const long long row =
      (static_cast<long long>(blockIdx.x) * BLOCK_THREADS + threadIdx.x) / lanes;
  const int lane = threadIdx.x % lanes;
  const int groups = static_cast<int>(voxels) / kWidth;
  typename Op::Partial sums[Op::kSums] = {};
  if (row < rows) {
    const typename Op::Channel channel = op.channel(row);
    const SCALAR* tensors[Op::kTensors];
    bool aligned = true;
#pragma unroll
    for (int t = 0; t < Op::kTensors; ++t) {
      tensors[t] = op.tensors[t] + row * voxels;
      aligned = aligned && (kWidth == 1 || is_pack_aligned(tensors[t]));
    }
    for (int from = lane; from < groups; from += kReads * lanes) {
      Read<kWidth> reads[kReads][Op::kTensors];
      // One branch for all loads: with one each, they would wait for each other.
      if (aligned) {
#pragma unroll
        for (int i = 0; i < kReads; ++i) {
          const int group = from + i * lanes;
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) {
            reads[i][t] = group < groups
                              ? Read<kWidth>::pack(tensors[t] + group * kWidth, Op::read_once(t))
                              : Read<kWidth>::none();
          }
        }
      } else {
#pragma unroll
        for (int i = 0; i < kReads; ++i) {
          const int group = from + i * lanes;
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) {
            reads[i][t] =
                Read<kWidth>::part(tensors[t] + group * kWidth, (groups - group) * kWidth);
          }
        }
      }
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
        add_values<Op, kWidth>(sums, reads[i], channel);
      }
    }
  }
  // Here the whole warp has converged again, which the shuffles need.
  for (int mask = lanes / 2; mask > 0; mask /= 2) {
#pragma unroll
    for (int k = 0; k < Op::kSums; ++k) sums[k] += shuffle_xor(sums[k], mask);
  }
  if (row < rows && lane == 0) {
#pragma unroll
    for (int k = 0; k < Op::kSums; ++k) op.finish(row, k, sums[k]);
  }
}

template <typename Op>
__device__ __forceinline__ void sum_short_rows(const Op& op, long long voxels, long long rows,
                                               int lanes) {
  if (voxels % kPerPack<SCALAR> == 0) {
    sum_short_rows<kPerPack<SCALAR>>(op, voxels, rows, lanes);
  } else {
    sum_short_rows<1>(op, voxels, rows, lanes);
  }
}

// Contiguous, N large: a block for each of the `segments` of a row, `segment` voxels each, a
// multiple of BLOCK_THREADS packs. `partials`: kSums * segments for each row; `counters`: one for
// each row.
//
// Where N is no multiple of a pack, rows begin at any address, so that no pack of most of them is
// aligned. Then a thread reads values that lie BLOCK_THREADS apart, so that a warp's lie side by
// side, and keeps them as a pack. Aligned packs behind a head of single values would be fewer
// loads, but which values a thread sums would then depend on the address of the row: a sample in a
// batch would have other bits than alone.
template <typename Op>
__device__ __forceinline__ void sum_long_rows(const Op& op, long long voxels, long long segment,
                                              unsigned segments, double* partials,
                                              unsigned* counters) {
  constexpr int kWidth = kPerPack<SCALAR>;
  constexpr int kReads = kPackReads<Op>;
  constexpr int kStep = BLOCK_THREADS * kWidth;
  const long long row = blockIdx.x / segments;
  const unsigned index = blockIdx.x % segments;
  const long long begin = index * segment;
  const long long end = min(voxels, begin + segment);
  const bool packed = voxels % kWidth == 0;
  const int first = packed ? threadIdx.x * kWidth : threadIdx.x;
  const SCALAR* tensors[Op::kTensors];
  bool aligned = packed;
#pragma unroll
  for (int t = 0; t < Op::kTensors; ++t) {
    tensors[t] = op.tensors[t] + row * voxels + begin + first;
    aligned = aligned && is_pack_aligned(tensors[t]);
  }
  const typename Op::Channel channel = op.channel(row);
  typename Op::Partial sums[Op::kSums] = {};
  for (long long from = begin; from < end; from += kReads * kStep) {
    // How many values there are from the thread's first one on, as far as this round goes.
    const int left =
        static_cast<int>(min(end - from, static_cast<long long>(kReads * kStep))) - first;
    Read<kWidth> reads[kReads][Op::kTensors];
    // One branch for all loads: with one each, they would wait for each other.
    if (aligned) {
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
#pragma unroll
        for (int t = 0; t < Op::kTensors; ++t) {
          reads[i][t] = i * kStep < left
                            ? Read<kWidth>::pack(tensors[t] + i * kStep, Op::read_once(t))
                            : Read<kWidth>::none();
        }
      }
    } else if (packed) {
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
#pragma unroll
        for (int t = 0; t < Op::kTensors; ++t) {
          reads[i][t] = Read<kWidth>::part(tensors[t] + i * kStep, left - i * kStep);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
#pragma unroll
        for (int t = 0; t < Op::kTensors; ++t) {
          reads[i][t] =
              Read<kWidth>::part(tensors[t] + i * kStep, left - i * kStep, BLOCK_THREADS);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < Op::kTensors; ++t) tensors[t] += kReads * kStep;
#pragma unroll
    for (int i = 0; i < kReads; ++i) {
      add_values<Op, kWidth>(sums, reads[i], channel);
    }
  }
#pragma unroll
  for (int k = 0; k < Op::kSums; ++k) {
    const typename Op::Partial total =
        block_reduce<BLOCK_THREADS>(sums[k], typename Op::Partial(0), Sum());
    if (threadIdx.x != 0) continue;
    if (segments == 1) {
      op.finish(row, k, total);
    } else {
      partials[(row * Op::kSums + k) * segments + index] = total;
    }
  }
  if (segments == 1 || !is_last_block(counters + row, segments)) return;
#pragma unroll
  for (int k = 0; k < Op::kSums; ++k) {
    double total = 0.0;
    for (unsigned i = threadIdx.x; i < segments; i += BLOCK_THREADS) {
      total += partials[(row * Op::kSums + k) * segments + i];
    }
    total = block_reduce<BLOCK_THREADS>(total, 0.0, Sum());
    if (threadIdx.x == 0) op.finish(row, k, total);
  }
}

// The values of a block's threads, which stand in rows of `lanes` threads.
template <int kWidth>
struct ThreadRows {
  double (&values)[kWidth][BLOCK_THREADS];

  // Adds up the `rows` rows as a tree of pairs; each thread of row 0 finds its sum at its element.
  __device__ __forceinline__ void add_up(int row, int rows, int lanes) const {
    while (rows > 1) {
      const int half = (rows + 1) / 2;
      __syncthreads();
      if (row + half < rows) {
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          values[j][threadIdx.x] += values[j][threadIdx.x + half * lanes];
        }
      }
      rows = half;
    }
  }
};

// Channels last: a block for each strip of `strip` voxels and each `lanes` groups of kWidth
// channels, with as many rows of `lanes` threads as fit, a voxel each at a time. kWidth divides C.
// `partials`: kSums * B * C for each strip; `counters`: one for each sample and `lanes` groups.
template <int kWidth, typename Op>
__device__ __forceinline__ void sum_columns(const Op& op, long long channels, long long voxels,
                                            long long strip, int lanes, double* partials,
                                            unsigned* counters) {
  constexpr int kReads = kWidth == 1 ? kValueReads<Op> : kPackReads<Op>;
  const unsigned groups = channels / kWidth;
  const unsigned parts = (groups + lanes - 1) / lanes;
  const unsigned strips = (voxels + strip - 1) / strip;
  const unsigned part = blockIdx.x % parts;
  const unsigned index = blockIdx.x / parts % strips;
  const long long b = blockIdx.x / parts / strips;

  const int rows = BLOCK_THREADS / lanes;
  const int row = threadIdx.x / lanes;
  const long long stride = rows * channels;
  const unsigned group = part * lanes + threadIdx.x % lanes;
  const bool active = row < rows && group < groups;
  const long long first_channel = static_cast<long long>(group) * kWidth;
  const long long begin = b * voxels + index * strip;
  const int count = min(voxels - index * strip, strip);
  const SCALAR* tensors[Op::kTensors];
  bool aligned = true;
#pragma unroll
  for (int t = 0; t < Op::kTensors; ++t) {
    aligned = aligned && is_pack_aligned(op.tensors[t]);
    tensors[t] = op.tensors[t] + (begin + row) * channels + first_channel;
  }

  typename Op::Partial sums[kWidth][Op::kSums] = {};
  if (active) {
    typename Op::Channel channel[kWidth];
#pragma unroll
    for (int j = 0; j < kWidth; ++j) channel[j] = op.channel(b * channels + first_channel + j);
    for (int from = row; from < count; from += kReads * rows) {
      Read<kWidth> reads[kReads][Op::kTensors];
      // One branch for all loads: with one each, they would wait for each other.
      if (aligned && from + (kReads - 1) * rows < count) {
#pragma unroll
        for (int i = 0; i < kReads; ++i) {
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) {
            reads[i][t] = Read<kWidth>::pack(tensors[t] + i * stride, Op::read_once(t));
          }
        }
      } else {
#pragma unroll
        for (int i = 0; i < kReads; ++i) {
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) {
            reads[i][t] = from + i * rows < count
                              ? Read<kWidth>::all(tensors[t] + i * stride, aligned,
                                                  Op::read_once(t))
                              : Read<kWidth>::none();
          }
        }
      }
#pragma unroll
      for (int t = 0; t < Op::kTensors; ++t) tensors[t] += kReads * stride;
#pragma unroll
      for (int i = 0; i < kReads; ++i) {
        float values[Op::kTensors][kWidth];
#pragma unroll
        for (int t = 0; t < Op::kTensors; ++t) reads[i][t].widened(values[t]);
#pragma unroll
        for (int j = 0; j < kWidth; ++j) {
          float of_channel[Op::kTensors];
#pragma unroll
          for (int t = 0; t < Op::kTensors; ++t) of_channel[t] = values[t][j];
          Op::add(sums[j], of_channel, channel[j]);
        }
      }
    }
  }

  const long long first_row = b * channels + first_channel;
  const long long samples_channels = gridDim.x / parts / strips * channels;
  const bool holds = active && row == 0;
  // Outside of add_up a thread reads and writes its own element alone, so no barrier is needed.
  __shared__ double of_thread[kWidth][BLOCK_THREADS];
  const ThreadRows<kWidth> thread_rows = {of_thread};
#pragma unroll
  for (int k = 0; k < Op::kSums; ++k) {
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kWidth; ++j) of_thread[j][threadIdx.x] = sums[j][k];
    thread_rows.add_up(row, rows, lanes);
    if (!holds) continue;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) {
      const double total = of_thread[j][threadIdx.x];
      if (strips == 1) {
        op.finish(first_row + j, k, total);
      } else {
        partials[(static_cast<long long>(k) * strips + index) * samples_channels + first_row + j] =
            total;
      }
    }
  }
  if (strips == 1 || !is_last_block(counters + b * parts + part, strips)) return;
#pragma unroll 1
  for (int k = 0; k < Op::kSums; ++k) {
    double totals[kWidth] = {};
    if (active) {
      for (unsigned i = row; i < strips; i += rows) {
        const double* of_strip =
            partials + (static_cast<long long>(k) * strips + i) * samples_channels + first_row;
#pragma unroll
        for (int j = 0; j < kWidth; ++j) totals[j] += of_strip[j];
      }
    }
    __syncthreads();
#pragma unroll
    for (int j = 0; j < kWidth; ++j) of_thread[j][threadIdx.x] = totals[j];
    thread_rows.add_up(row, rows, lanes);
    if (!holds) continue;
#pragma unroll
    for (int j = 0; j < kWidth; ++j) op.finish(first_row + j, k, of_thread[j][threadIdx.x]);
  }
}

template <typename Op>
__device__ __forceinline__ void sum_columns(const Op& op, long long channels, long long voxels,
                                            long long strip, int lanes, double* partials,
                                            unsigned* counters) {
  if (channels % kPerPack<SCALAR> == 0) {
    sum_columns<kPerPack<SCALAR>>(op, channels, voxels, strip, lanes, partials, counters);
  } else {
    sum_columns<1>(op, channels, voxels, strip, lanes, partials, counters);
  }
}

// The three entries of an op whose parameters are `...`, with `resident_blocks` blocks on each
// multiprocessor.
#define CHANNEL_SUMS_ENTRY(name, resident_blocks) \
  extern "C" __global__ void __launch_bounds__(BLOCK_THREADS, resident_blocks) ENTRY(name)
#define CHANNEL_SUMS_ENTRIES(name, resident_blocks, op, ...)                         \
  CHANNEL_SUMS_ENTRY(name##_short, resident_blocks)                                  \
  (__VA_ARGS__, long long voxels, long long rows, int lanes) {                       \
    sum_short_rows(op, voxels, rows, lanes);                                         \
  }                                                                                  \
  CHANNEL_SUMS_ENTRY(name##_rows, resident_blocks)                                   \
  (__VA_ARGS__, long long voxels, long long segment, int segments, double* partials, \
   unsigned* counters) {                                                             \
    sum_long_rows(op, voxels, segment, segments, partials, counters);                \
  }                                                                                  \
  CHANNEL_SUMS_ENTRY(name##_columns, resident_blocks)                                \
  (__VA_ARGS__, long long voxels, long long strip, int lanes, double* partials,      \
   unsigned* counters, long long channels) {                                         \
    sum_columns(op, channels, voxels, strip, lanes, partials, counters);             \
  }
