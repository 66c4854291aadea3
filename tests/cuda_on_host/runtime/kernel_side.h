// What the functions of CUDA that kernels call (device/) need of the runtime.
#pragma once

#include <cstddef>
#include <cstdint>

// As CUDA declares them.
struct uint3 {
  unsigned x, y, z;
};

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

namespace on_host {

constexpr int kWarpSize = 32;
constexpr int kMaxThreads = 1024;                       // of a block
constexpr size_t kMaxDynamicShared = size_t{64} << 10;  // bytes of a block, as on sm_75
// Behind the dynamic shared memory, to see writes past its end.
constexpr size_t kDynamicSharedTail = 1024;

// The variables that CUDA gives the running thread.
struct BuiltIn {
  uint3 thread_index;
  uint3 block_index;
  dim3 block_size;
  dim3 grid_size;
  int lane;
};
extern BuiltIn built_in;

// Where in a kernel a barrier or a warp function is called.
struct CallSite {
  const char* file;
  int line;
};

// What the threads that came to a block's barrier voted.
struct Votes {
  int yes;
  int no;
};

// __syncthreads and kin.
Votes block_barrier(bool vote, CallSite site);

enum class WarpFunction { kBarrier, kShuffle, kBallot };

// Waits for all lanes of `mask` that have not ended, then gives
// for kShuffle the value of lane `source`, all ones if that lane does not take part;
// for kBallot the lanes whose value is not 0.
uint64_t warp_function(WarpFunction function, uint32_t mask, uint64_t value, int source,
                       CallSite site);

// __threadfence, as ThreadSanitizer understands it.
void thread_fence();

// ---- What a library of kernels tells the driver; see device/module.h.

struct KernelEntry {
  const char* name;
  // Calls the kernel as the running thread, with the arguments that the pointers point to.
  void (*call)(void** arguments);
  const size_t* argument_bytes;
  size_t argument_count;
};

struct KernelModule {
  const KernelEntry* entries;
  size_t entry_count;
  // The storage of each `extern __shared__` array of this module, for the calling thread of the OS.
  unsigned char* (*const* dynamic_shared)();
  size_t dynamic_shared_count;
  // Whether `__shared__` variables are thread-local ones of the library; else they are static.
  bool thread_local_shared;
  // Makes sure that the calling thread of the OS has those variables.
  void (*touch_shared)();
};

}  // namespace on_host
