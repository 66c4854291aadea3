// Barriers, and functions across the lanes of a warp.
#pragma once

#include "device/bits.h"
#include "runtime/kernel_side.h"

// As last parameters, the place where the function is called.
#define ON_HOST_CALL_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(ON_HOST_CALL_SITE) { on_host::block_barrier(false, {file, line}); }

inline int __syncthreads_count(int vote, ON_HOST_CALL_SITE) {
  return on_host::block_barrier(vote != 0, {file, line}).yes;
}

inline int __syncthreads_or(int vote, ON_HOST_CALL_SITE) {
  return on_host::block_barrier(vote != 0, {file, line}).yes != 0;
}

inline int __syncthreads_and(int vote, ON_HOST_CALL_SITE) {
  return on_host::block_barrier(vote != 0, {file, line}).no == 0;
}

inline void __syncwarp(unsigned mask = 0xffffffffu, ON_HOST_CALL_SITE) {
  on_host::warp_function(on_host::WarpFunction::kBarrier, mask, 0, 0, {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int vote, ON_HOST_CALL_SITE) {
  return static_cast<unsigned>(
      on_host::warp_function(on_host::WarpFunction::kBallot, mask, vote != 0, 0, {file, line}));
}

inline int __any_sync(unsigned mask, int vote, ON_HOST_CALL_SITE) {
  return __ballot_sync(mask, vote, file, line) != 0;
}

inline int __all_sync(unsigned mask, int vote, ON_HOST_CALL_SITE) {
  return __ballot_sync(mask, !vote, file, line) == 0;
}

namespace on_host {

template <typename T>
T shuffle(unsigned mask, T value, int source, const char* file, int line) {
  static_assert(sizeof(T) == 4 || sizeof(T) == 8, "CUDA shuffles words of 32 or 64 bits");
  return from_bits<T>(
      warp_function(WarpFunction::kShuffle, mask, to_bits(value), source, {file, line}));
}

// The first lane of the group of `width` lanes that the running one is in.
inline int group_begin(int width) { return built_in.lane & ~(width - 1); }

}  // namespace on_host

template <typename T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, ON_HOST_CALL_SITE) {
  const int lane = on_host::group_begin(width) | (source & (width - 1));
  return on_host::shuffle(mask, value, lane, file, line);
}

template <typename T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, ON_HOST_CALL_SITE) {
  const int own = on_host::built_in.lane;
  const int lane = own - static_cast<int>(delta);
  return on_host::shuffle(mask, value, lane < on_host::group_begin(width) ? own : lane, file, line);
}

template <typename T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, ON_HOST_CALL_SITE) {
  const int own = on_host::built_in.lane;
  const int lane = own + static_cast<int>(delta);
  const int end = on_host::group_begin(width) + width;
  return on_host::shuffle(mask, value, lane < end ? lane : own, file, line);
}

template <typename T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, ON_HOST_CALL_SITE) {
  const int own = on_host::built_in.lane;
  const int lane = own ^ lane_mask;
  const int end = on_host::group_begin(width) + width;
  return on_host::shuffle(mask, value, lane < end ? lane : own, file, line);
}
