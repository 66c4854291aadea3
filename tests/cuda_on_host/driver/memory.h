// Device memory: that of the process, with every allocation guarded.
#pragma once

#include <cstddef>
#include <string>

#include "driver/status.h"

namespace on_host {

// 256-byte aligned like the driver's, and full of 0xFF, which is NaN as any floating-point type.
// Under AddressSanitizer it lies between red zones; else it ends (but for the alignment) where a
// page begins that must not be touched, and the bytes up to there are watched.
Status allocate(size_t bytes, void** pointer);
Status deallocate(void* pointer);

// Whether all these bytes are of one allocation.
bool is_allocated(const void* pointer, size_t bytes);

// Finds writes to the bytes around the allocations: what is wrong, or nothing.
std::string check_allocations();

// Describes what is nearest to an address, for a handler of signals. Returns the length of the
// text.
size_t describe_address(const void* address, char* text, size_t capacity);

}  // namespace on_host
