// The shared memory of the kernels of one library: poisoned before each block, checked after it.
#pragma once

#include <cstddef>
#include <string>

#include "runtime/kernel_side.h"

namespace on_host {

class SharedMemory {
 public:
  // For the calling thread of the OS, whose blocks it serves.
  SharedMemory(const KernelModule& module, size_t dynamic_bytes);
  ~SharedMemory();

  // Sets all of it to 0xFF, which is NaN as any floating-point type.
  void poison() const;

  // Finds writes past the end of the dynamic part: what is wrong, or nothing.
  std::string check() const;

 private:
  const KernelModule& module_;
  size_t dynamic_bytes_;
  // The thread-local variables of the library.
  unsigned char* begin_ = nullptr;
  unsigned char* end_ = nullptr;
};

}  // namespace on_host
