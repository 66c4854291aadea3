// The device that is imitated: its limits are those of the oldest one that the project is for.
#pragma once

#include <cstddef>

namespace on_host {

constexpr char kDeviceName[] = "CUDA on the host";
constexpr int kComputeCapability[2] = {7, 5};
constexpr int kMultiprocessors = 8;
constexpr unsigned kMaxGrid[3] = {0x7fffffff, 65535, 65535};
// Little, so that a test that asks for too much is told so before it fills the machine.
constexpr size_t kMemoryBytes = size_t{1} << 30;
constexpr size_t kSharedBytes = size_t{48} << 10;  // of a block, unless a kernel asks for more
constexpr size_t kRegisters = size_t{64} << 10;    // of a block

}  // namespace on_host
