// Counts and sums of a map in [0, 1] and a mask, between all multiples of 1/512 and on either side
// of a threshold: the table of src/ops/evaluation_sums/table.rs, which says what the rows are.
//
// Reads `map` (B, N) float and `mask` (B, N) u8 once, writes a table of TABLE_LENGTH 64-bit words
// per sample. A block takes rounds·4·blockDim.x values of one sample, a thread 4 side by side of
// each round, and counts them in shared memory, its neighbours in one step where they fall into one
// slot: maps are smooth, and many of their values are 0. Then it adds what it counted to the
// sample's table in `tables`, with up to TABLE_LENGTH atomics, and the last block of a sample moves
// that to `output` and leaves zeros. All sums are of whole numbers, so they do not depend on the
// order.

#include "lib/last_block.cuh"
#include "lib/scalar.cuh"

constexpr unsigned kHalfBins = 512;
constexpr unsigned kInvalidRow = kHalfBins + 2;
// A row outside of the mask, and inside.
constexpr unsigned kSlots = 2 * (kInvalidRow + 1);
static_assert(2 * kSlots == TABLE_LENGTH, "as table.rs has it");

// An aligned load is 16 bytes of the map, and a word of the mask.
static_assert(PER_LOAD == 4, "load_values and load_mask");

// In shared memory a slot has two words of 32 bits, whose atomics are native. `low` is the sum of
// its fractions modulo 2^32. `high` holds, from bit 16 on, how often that wrapped, and below the
// count.
static_assert(MOST_ROUNDS * PER_LOAD * MOST_THREADS < 1 << 16, "the count of a block has 16 bits");
static_assert(MOST_ROUNDS * PER_LOAD <= 1 << 8, "the fractions of a thread have 32 bits");
constexpr int kCountBits = 16;

// Values of a thread that fell into one slot, one after the other.
struct Run {
  unsigned slot;
  unsigned count;
  unsigned fraction;
};

// The slot of a value, and how far it lies above the lower border of its bin in units of 2^-33. All
// but the last conversion is exact, and it too from 2^-10 on; below that it takes the nearest.
__device__ __forceinline__ Run run_of(float value, bool inside, float threshold) {
  if (!(value >= 0.0f && value <= 1.0f)) return Run{2 * kInvalidRow + inside, 1, 0};
  const float scaled = value * static_cast<float>(kHalfBins);
  const int bin = static_cast<int>(scaled);
  const float fraction = (scaled - static_cast<float>(bin)) * 16777216.0f;
  const unsigned row = bin + (value >= threshold);
  return Run{2 * row + inside, 1, static_cast<unsigned>(__float2int_rn(fraction))};
}

__device__ __forceinline__ void count(Run run, unsigned* low, unsigned* high) {
  if (run.count == 0) return;
  const unsigned before = atomicAdd(&low[run.slot], run.fraction);
  const unsigned wrapped = before + run.fraction < before;
  atomicAdd(&high[run.slot], run.count + (wrapped << kCountBits));
}

// PER_LOAD values from `from` on, of which `left` are there; `kWhole`: all, and aligned.
template <bool kWhole>
__device__ __forceinline__ void load_values(const float* from, long long left,
                                            float (&values)[PER_LOAD]) {
  if (kWhole) {
    unpack<f32>(load_streaming(from), values);
    return;
  }
#pragma unroll
  for (int i = 0; i < PER_LOAD; ++i) values[i] = i < left ? from[i] : 0.0f;
}

// The same of a mask, a byte each.
template <bool kWhole>
__device__ __forceinline__ unsigned load_mask(const u8* from, long long left) {
  if (kWhole) return *reinterpret_cast<const unsigned*>(from);
  unsigned mask = 0;
#pragma unroll
  for (int i = 0; i < PER_LOAD; ++i) {
    mask |= (i < left ? static_cast<unsigned>(from[i]) : 0u) << (8 * i);
  }
  return mask;
}

// Counts what a thread takes of its block, from `first` on; `kWhole`: all of it is there, and lies
// where 16 bytes begin, or 4 of the mask.
template <bool kWhole>
__device__ __forceinline__ void count_block(const float* map, const u8* mask, long long first,
                                            long long voxels, int rounds, float threshold,
                                            unsigned* low, unsigned* high) {
  Run run = {0, 0, 0};
  for (int round = 0; round < rounds; round += UNROLLED) {
    float values[UNROLLED][PER_LOAD];
    unsigned masks[UNROLLED] = {};
    long long at[UNROLLED];
#pragma unroll
    for (int u = 0; u < UNROLLED; ++u) {
      at[u] = first + static_cast<long long>(round + u) * blockDim.x * PER_LOAD;
      load_values<kWhole>(map + at[u], voxels - at[u], values[u]);
    }
    if (mask != nullptr) {
#pragma unroll
      for (int u = 0; u < UNROLLED; ++u) {
        masks[u] = load_mask<kWhole>(mask + at[u], voxels - at[u]);
      }
    }
#pragma unroll
    for (int u = 0; u < UNROLLED; ++u) {
#pragma unroll
      for (int i = 0; i < PER_LOAD; ++i) {
        if (!kWhole && at[u] + i >= voxels) continue;
        const bool inside = (masks[u] >> (8 * i) & 0xffu) != 0;
        const Run next = run_of(values[u][i], inside, threshold);
        if (next.slot == run.slot) {
          run.count += next.count;
          run.fraction += next.fraction;
        } else {
          count(run, low, high);
          run = next;
        }
      }
    }
  }
  count(run, low, high);
}

// At most MOST_THREADS threads. `blocks`: of a sample; `rounds`, a multiple of UNROLLED: of a block. `mask` may be null, then all
// is outside. `threshold`: NaN for none. `tables` and `counters`: 0 before and after.
extern "C" __global__ void __launch_bounds__(MOST_THREADS, RESIDENT_BLOCKS)
    ENTRY(evaluation_sums)(const float* map, const u8* mask, long long voxels, float threshold,
                           unsigned blocks, int rounds, unsigned long long* tables,
                           unsigned* counters, unsigned long long* output) {
  __shared__ unsigned low[kSlots];
  __shared__ unsigned high[kSlots];
  const long long sample = blockIdx.x / blocks;
  map += sample * voxels;
  if (mask != nullptr) mask += sample * voxels;
  unsigned long long* table = tables + sample * TABLE_LENGTH;

  for (unsigned slot = threadIdx.x; slot < kSlots; slot += blockDim.x) {
    low[slot] = high[slot] = 0;
  }
  __syncthreads();

  const long long block = blockIdx.x % blocks;
  const long long first = (block * rounds * blockDim.x + threadIdx.x) * PER_LOAD;
  const long long end = (block + 1) * rounds * blockDim.x * PER_LOAD;
  const bool aligned = is_pack_aligned(map) && (reinterpret_cast<size_t>(mask) & 3) == 0;
  if (end <= voxels && aligned) {
    count_block<true>(map, mask, first, voxels, rounds, threshold, low, high);
  } else {
    count_block<false>(map, mask, first, voxels, rounds, threshold, low, high);
  }
  __syncthreads();

  for (unsigned slot = threadIdx.x; slot < kSlots; slot += blockDim.x) {
    const unsigned word = high[slot];
    if (word == 0) continue;
    atomicAdd(&table[2 * slot], static_cast<unsigned long long>(word & ((1u << kCountBits) - 1)));
    atomicAdd(&table[2 * slot + 1],
              static_cast<unsigned long long>(word >> kCountBits) << 32 | low[slot]);
  }
  if (!is_last_block(&counters[sample], blocks)) return;
  for (unsigned i = threadIdx.x; i < TABLE_LENGTH; i += blockDim.x) {
    output[sample * TABLE_LENGTH + i] = atomicExch(&table[i], 0ull);
  }
}
