// A launch: the blocks of a grid, one after the other.
#pragma once

#include <cstddef>
#include <string>

#include "runtime/kernel_side.h"

namespace on_host {

struct Grid {
  const KernelModule* module;
  const KernelEntry* entry;
  dim3 size;
  dim3 block_size;
  size_t dynamic_shared_bytes;
  void** arguments;
};

// Runs it, and returns what is wrong with the kernel, or nothing. One grid at a time.
std::string run(const Grid& grid);

// "kernel project_f32, block (0,0,0), thread (5,0,0)" while one runs, for a handler of signals: no
// memory is allocated. Returns how many characters it wrote.
size_t describe_running(char* text, size_t capacity);

}  // namespace on_host
