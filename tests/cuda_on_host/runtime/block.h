// One block of a grid: its threads, their warps and barriers.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "runtime/fiber.h"
#include "runtime/kernel_side.h"
#include "runtime/order.h"

namespace on_host {

class Block {
 public:
  // Runs all threads of the block to their end. `call` is what each of them runs. Returns what is
  // wrong with the kernel, or nothing.
  std::string run(uint3 block_index, void (*call)(), Order order);

  // Called on the fiber of the running thread; see kernel_side.h.
  Votes block_barrier(bool vote, CallSite site);
  uint64_t warp_function(WarpFunction function, uint32_t mask, uint64_t value, int source,
                         CallSite site);

  // Tells ThreadSanitizer that what the calling thread of the OS does next comes after all that
  // blocks did so far. Their threads begin after what the caller of run() did.
  static void wait();

 private:
  enum class State { kReady, kAtBlockBarrier, kAtWarpFunction, kEnded };

  struct Thread {
    Fiber fiber;
    uint3 index;
    int warp;
    int lane;
    State state;
    CallSite site;  // where it waits
    bool vote;
  };

  // What a lane brought to a warp function.
  struct Call {
    WarpFunction function;
    uint32_t mask;
    uint64_t value;
    int source;
    uint64_t result;
    CallSite site;
  };

  struct Warp {
    uint32_t arrived;  // lanes that wait in a warp function
    uint32_t ended;    // lanes whose thread has ended, or never was
    Call calls[kWarpSize];
    int phase;
    char ordered[2];  // addresses for ThreadSanitizer, by phase
  };

  static void thread_main();
  void reset();
  bool run_warp(int warp, Order& order);
  void resume(Thread& thread);
  bool complete(Warp& warp, uint32_t mask);
  void open_barrier();
  std::string stuck() const;
  // Not inline: its strings would be in the frame of every warp function.
  [[gnu::noinline, gnu::cold]] void fail_call(int lane, const Call& call, const Call* other);
  void fail(const std::string& problem);
  std::string describe(const Thread& thread) const;

  uint3 index_;
  void (*call_)();
  int thread_count_;
  int warp_count_;
  int live_;
  int phase_;  // of the block's barrier
  Votes votes_[2];
  char begun_;       // addresses for ThreadSanitizer
  char ordered_[2];  // by phase
  Thread* running_;
  std::string problem_;
  std::unique_ptr<Thread[]> threads_{new Thread[kMaxThreads]};
  std::unique_ptr<Warp[]> warps_{new Warp[kMaxThreads / kWarpSize]};
};

}  // namespace on_host
