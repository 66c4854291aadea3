// Resampled maps, tile by tile; src/ops/resample/mod.rs has the formulas.
//
// A block makes a tile of the new grid, up to TILE_ROWS rows of up to TILE_COLUMNS columns, in each
// of its planes. The positions along W and H are worked out once for all of them, and kept in
// shared memory. A plane is made in runs of rows: first the values of the old columns that the run
// needs are mixed along D and H, for each row of the run, and kept in shared memory, then each
// voxel is mixed from two of these.
//
// The arithmetic of a voxel is the same in every kernel, with its fused products written out: a
// range found by one kernel is made of the bits that another stores.
#pragma once

#include "lib/extremes.cuh"
#include "lib/scalar.cuh"

// An axis that goes from `from` to `to` voxels, of which `count` are wanted: all of them, or, where
// they are fewer, the first and the last between each two voxels of the old grid, in pairs.
struct Axis {
  // What divides by 2·from and by 2·to, see `divide`.
  unsigned long long by_from;
  unsigned long long by_to;
  int shift_from;
  int shift_to;
  int from;
  int to;
  int count;
  int nearest;
};

// As src/ops/resampling/cuda.rs has it.
struct Resampling {
  Axis depth;
  Axis height;
  Axis width;
  // Of a tile, at most, and how many tiles lie side by side.
  int tile_rows;
  int tile_columns;
  int column_tiles;
  // Of a run; 1 if a tile has not whole rows, so that a run is always one stretch of memory.
  int run_rows;
  // Whether a row keeps all old columns from its first to its last, rather than two for each voxel.
  int dense;
};

// The voxels of a sample on the old grid, and on the new one.
__device__ __forceinline__ long long old_voxels(const Resampling& plan) {
  return static_cast<long long>(plan.depth.from) * plan.height.from * plan.width.from;
}

__device__ __forceinline__ long long new_voxels(const Resampling& plan) {
  return static_cast<long long>(plan.depth.to) * plan.height.to * plan.width.to;
}

constexpr float kStep = 1.0f / (1 << 24);

// A position as (1 - weight)·v[low] + weight·v[low + 1]. A weight is a multiple of 2^-24, so that
// 1 - weight is exact; where it is 0, v[low + 1] plays no part, and may not exist.
struct Tap {
  int low;
  float weight;
};

// The quotient of a number below 2^62, exactly: `by` is 2^(64 + shift) over the divisor, rounded up.
// The compiler's own 64-bit division is a call of a hundred instructions.
__device__ __forceinline__ unsigned long long divide(unsigned long long number,
                                                     unsigned long long by, int shift) {
  return __umul64hi(number, by) >> shift;
}

// The first voxel that lies between the old voxels `low` and `low + 1`, or behind them all.
__device__ __forceinline__ int first_from(const Axis& axis, int low) {
  if (low == 0) return 0;
  const unsigned long long centres = 2ull * low + (axis.nearest ? 0 : 1);
  const unsigned long long first =
      divide(axis.to * centres + axis.from - 1, axis.by_from, axis.shift_from);
  return static_cast<int>(min(first, static_cast<unsigned long long>(axis.to)));
}

// The tap of the `index`-th voxel that is wanted, in whole numbers, as src/ops/resampling/taps.rs.
__device__ __forceinline__ Tap tap_at(const Axis& axis, int index) {
  int voxel = index;
  if (axis.count < axis.to) {
    const int last = index & 1;
    voxel = first_from(axis, index / 2 + last) - last;
  }
  const unsigned long long centre = (2ull * voxel + 1) * axis.from;
  if (axis.nearest) {
    return Tap{static_cast<int>(divide(centre, axis.by_to, axis.shift_to)), 0.0f};
  }
  const unsigned long long position = centre > axis.to ? centre - axis.to : 0;
  const unsigned long long low = divide(position, axis.by_to, axis.shift_to);
  if (low + 1 == axis.from) return Tap{static_cast<int>(low), 0.0f};
  const unsigned long long rest = position - low * (2ull * axis.to);
  const unsigned long long steps = divide((rest << 24) + axis.to, axis.by_to, axis.shift_to);
  return Tap{static_cast<int>(low), static_cast<float>(static_cast<int>(steps)) * kStep};
}

struct Tile {
  // The taps along W and H, and along D of the plane to come.
  alignas(16) int low[TILE_COLUMNS];
  alignas(16) float weight[TILE_COLUMNS];
  Tap rows[TILE_ROWS];
  Tap plane;
  // What a run keeps, row by row; what lies behind is read too, and plays no part.
  float kept[TILE_SOURCE + 1];
};

// `low` where the weight is 0: infinity times 0 would be NaN. The first product alone is rounded
// before the sum, so what lies between two equal values is that value.
__device__ __forceinline__ float between(float low, float high, float weight) {
  return weight == 0.0f ? low : fmaf(weight, high, (1.0f - weight) * low);
}

// The two planes of the old grid that a new one lies between.
struct Planes {
  const float* low;
  const float* high;
  float weight;
  int width;
};

// The value of column `x`, mixed along D and H.
__device__ __forceinline__ float column(const Planes& planes, Tap row, int x) {
  const long long at = static_cast<long long>(row.low) * planes.width + x;
  const bool one_row = row.weight == 0.0f;
  float low = planes.low[at];
  float high = one_row ? low : planes.low[at + planes.width];
  // The same for all threads of the block; in 2D always so.
  if (planes.weight != 0.0f) {
    low = between(low, planes.high[at], planes.weight);
    high = one_row ? low : between(high, planes.high[at + planes.width], planes.weight);
  }
  return between(low, high, row.weight);
}

// Some rows of a tile in one plane; their voxels are numbered row after row.
struct Run {
  int columns;
  float inverse_columns;
  int voxels;
  // How many values a row keeps, and the first old column of a dense one.
  int span;
  int first_source;
  bool dense;
};

// The voxel of a row's column `at`, whose tap is given.
__device__ __forceinline__ float voxel_of(const Tile& tile, const Run& run, int row, int at,
                                          int low, float weight) {
  const float* kept = tile.kept + row * run.span + (run.dense ? low - run.first_source : 2 * at);
  return between(kept[0], kept[1], weight);
}

// Voxels `first` to `first + 3` of a run, as far as they are in it.
__device__ __forceinline__ void four_voxels(const Tile& tile, const Run& run, int first,
                                            float (&values)[4]) {
  // The quotient lies half a column from any whole number at least: exact up to 2^22 voxels.
  const int place = max(first, 0);
  int row = static_cast<int>((static_cast<float>(place) + 0.5f) * run.inverse_columns);
  int at = place - row * run.columns;
  if (first >= 0 && at % 4 == 0 && at + 4 <= run.columns) {
    const int4 low = *reinterpret_cast<const int4*>(tile.low + at);
    const float4 weight = *reinterpret_cast<const float4*>(tile.weight + at);
    values[0] = voxel_of(tile, run, row, at, low.x, weight.x);
    values[1] = voxel_of(tile, run, row, at + 1, low.y, weight.y);
    values[2] = voxel_of(tile, run, row, at + 2, low.z, weight.z);
    values[3] = voxel_of(tile, run, row, at + 3, low.w, weight.w);
    return;
  }
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    if (first + i < 0 || first + i >= run.voxels) continue;
    values[i] = voxel_of(tile, run, row, at, tile.low[at], tile.weight[at]);
    if (++at == run.columns) {
      at = 0;
      ++row;
    }
  }
}

// Makes the block's tile of each plane blockIdx.y, blockIdx.y + gridDim.y... of the sample `map`.
//
// The sink gets the voxels in groups of four, by sink.four(start, first, voxels, values): `start` is
// the index of the run's first voxel among the sample's wanted voxels, `first` that of the group
// within the run, which has `voxels`. The first group begins sink.shift(start) values before the
// run, so that a sink can store whole groups at aligned addresses. All threads of the block call
// this; each group is given to one thread.
template <typename Sink>
__device__ __forceinline__ void resample_tile(const float* __restrict__ map,
                                              const Resampling& plan, Tile& tile, Sink& sink) {
  const int row_tile = plan.column_tiles == 1 ? blockIdx.x : blockIdx.x / plan.column_tiles;
  const int column_tile = blockIdx.x - row_tile * plan.column_tiles;
  const int first_row = row_tile * plan.tile_rows;
  const int first_column = column_tile * plan.tile_columns;
  const int rows = min(plan.tile_rows, plan.height.count - first_row);
  const int columns = min(plan.tile_columns, plan.width.count - first_column);

  for (int i = threadIdx.x; i < columns; i += BLOCK_THREADS) {
    const Tap tap = tap_at(plan.width, first_column + i);
    tile.low[i] = tap.low;
    tile.weight[i] = tap.weight;
  }
  // By the last threads, which have fewer columns.
  for (int i = BLOCK_THREADS - 1 - threadIdx.x; i < rows; i += BLOCK_THREADS) {
    tile.rows[i] = tap_at(plan.height, first_row + i);
  }
  if (threadIdx.x == BLOCK_THREADS / 2) tile.plane = tap_at(plan.depth, blockIdx.y);
  __syncthreads();

  Run run;
  run.columns = columns;
  run.inverse_columns = 1.0f / static_cast<float>(columns);
  run.dense = plan.dense != 0;
  run.first_source = tile.low[0];
  const int last_source = tile.low[columns - 1] + (tile.weight[columns - 1] != 0.0f);
  run.span = run.dense ? last_source - run.first_source + 1 : 2 * columns;
  const float inverse_span = 1.0f / static_cast<float>(run.span);
  const long long plane_voxels = static_cast<long long>(plan.height.from) * plan.width.from;

  for (int plane = blockIdx.y; plane < plan.depth.count; plane += gridDim.y) {
    const Tap depth = tile.plane;
    Planes planes;
    planes.weight = depth.weight;
    planes.width = plan.width.from;
    planes.low = map + depth.low * plane_voxels;
    planes.high = depth.weight == 0.0f ? planes.low : planes.low + plane_voxels;
    for (int row = 0; row < rows; row += plan.run_rows) {
      const int run_rows = min(plan.run_rows, rows - row);
      run.voxels = run_rows * columns;
      // Now all threads are done with the last run, and know this plane.
      __syncthreads();
      if (row == 0 && threadIdx.x == 0 && plane + gridDim.y < plan.depth.count) {
        tile.plane = tap_at(plan.depth, plane + gridDim.y);
      }
      for (int i = threadIdx.x; i < run_rows * run.span; i += BLOCK_THREADS) {
        const int of = static_cast<int>((static_cast<float>(i) + 0.5f) * inverse_span);
        const int at = i - of * run.span;
        const int x = run.dense ? run.first_source + at
                                : tile.low[at / 2] + (at % 2 != 0 && tile.weight[at / 2] != 0.0f);
        tile.kept[i] = column(planes, tile.rows[row + of], x);
      }
      __syncthreads();
      const long long line = static_cast<long long>(plane) * plan.height.count + first_row + row;
      const long long start = line * plan.width.count + first_column;
      const int before = sink.shift(start);
      for (int first = 4 * threadIdx.x - before; first < run.voxels; first += 4 * BLOCK_THREADS) {
        float values[4] = {};
        four_voxels(tile, run, first, values);
        sink.four(start, first, run.voxels, values);
      }
    }
  }
}

// Keeps the extremes of the voxels, and nothing else of them.
struct KeepExtremes {
  Extremes extremes;

  __device__ __forceinline__ int shift(long long) const { return 0; }

  __device__ __forceinline__ void four(long long, int first, int voxels,
                                       const float (&values)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (first + i >= 0 && first + i < voxels) include(extremes, values[i]);
    }
  }
};

// Writes the extremes of the sample blockIdx.z once all of its blocks are done. `partials`: one for
// each block of the grid; `counters` and `result`: one for each sample.
__device__ __forceinline__ void finish_extremes(Extremes found, Extremes* partials,
                                                unsigned* counters, Extremes* result) {
  const unsigned block = blockIdx.y * gridDim.x + blockIdx.x;
  const unsigned blocks = gridDim.x * gridDim.y;
  partials += static_cast<size_t>(blockIdx.z) * blocks;
  if (merge_blocks<BLOCK_THREADS>(found, partials, counters + blockIdx.z, block, blocks)) {
    result[blockIdx.z] = found;
  }
}
