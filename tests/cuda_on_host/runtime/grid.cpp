#include "runtime/grid.h"

#include <sched.h>

#include <atomic>
#include <cstdio>
#include <thread>

#include "runtime/block.h"
#include "runtime/order.h"
#include "runtime/sanitizers.h"
#include "runtime/shared_memory.h"

namespace on_host {
namespace {

const Grid* running_grid;

void call_kernel() { running_grid->entry->call(running_grid->arguments); }

// Runs one block in the calling thread of the OS. Each fiber is a thread to ThreadSanitizer, and
// the threads of blocks that run after one another must not be the same: `turn` counts the blocks.
std::string run_block(const SharedMemory& shared, size_t number, size_t turn, const Order& order) {
  static Block blocks[2];
  const dim3 size = running_grid->size;
  const auto index = [&](size_t i, unsigned extent) { return static_cast<unsigned>(i % extent); };
  const size_t plane = size_t{size.x} * size.y;
  const uint3 block = {index(number, size.x), index(number / size.x, size.y),
                       static_cast<unsigned>(number / plane)};
  shared.poison();
  const std::string problem =
      blocks[kThreadSanitizer ? turn % 2 : 0].run(block, call_kernel, order.fork(number));
  return problem.empty() ? shared.check() : problem;
}

// Runs one block in a thread of its own, whose `__shared__` variables are fresh, with no order
// between it and the other blocks that ThreadSanitizer would know of. To join the thread would be
// one.
std::string run_block_in_thread(size_t number, size_t turn, const Order& order) {
  std::string problem;
  std::atomic<bool> done = false;
  std::thread([&] {
    {
      const SharedMemory shared(*running_grid->module, running_grid->dynamic_shared_bytes);
      problem = run_block(shared, number, turn, order);
    }
    // What the threads did comes before the end of this one, which frees their shared memory.
    Block::wait();
    done.store(true, std::memory_order_release);
  }).detach();
  while (!done.load(std::memory_order_acquire)) sched_yield();
  return problem;
}

}  // namespace

std::string run(const Grid& grid) {
  running_grid = &grid;
  built_in.block_size = grid.block_size;
  built_in.grid_size = grid.size;
  Order order = Order::from_environment();
  const size_t count = size_t{grid.size.x} * grid.size.y * grid.size.z;
  order.shuffle(count);
  std::string problem;
  const SharedMemory shared(*grid.module, grid.dynamic_shared_bytes);
  for (size_t turn = 0; turn < count && problem.empty(); ++turn) {
    const size_t number = order.at(turn, count);
    problem = kThreadSanitizer ? run_block_in_thread(number, turn, order)
                               : run_block(shared, number, turn, order);
  }
  Block::wait();
  running_grid = nullptr;
  return problem;
}

size_t describe_running(char* text, size_t capacity) {
  if (running_grid == nullptr) return 0;
  const uint3 block = built_in.block_index;
  const uint3 thread = built_in.thread_index;
  const int count = std::snprintf(text, capacity, "kernel %s, block (%u,%u,%u), thread (%u,%u,%u)",
                                  running_grid->entry->name, block.x, block.y, block.z, thread.x,
                                  thread.y, thread.z);
  return count < 0 ? 0 : static_cast<size_t>(count);
}

}  // namespace on_host
