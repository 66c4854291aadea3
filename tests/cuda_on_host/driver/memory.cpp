#include "driver/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>

#include "driver/device.h"
#include "runtime/kernel_side.h"
#include "runtime/sanitizers.h"

namespace on_host {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kAlignment = 256;
constexpr unsigned char kWatched = 0xA5;

struct Allocation {
  size_t bytes;
  // What is mapped: a guard page, watched bytes, the memory, watched bytes, a guard page.
  unsigned char* mapped;
  size_t mapped_bytes;
};

std::map<uintptr_t, Allocation> allocations;
size_t used_bytes;

size_t round_up(size_t bytes, size_t unit) { return (bytes + unit - 1) / unit * unit; }

unsigned char* map_guarded(size_t bytes, Allocation* allocation) {
  const size_t padded = round_up(bytes, kAlignment);
  const size_t inner = round_up(padded, kPage);
  allocation->mapped_bytes = inner + 2 * kPage;
  void* mapped = mmap(nullptr, allocation->mapped_bytes, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  allocation->mapped = static_cast<unsigned char*>(mapped);
  unsigned char* begin = allocation->mapped + kPage;
  if (mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0) return nullptr;
  unsigned char* memory = begin + inner - padded;
  std::memset(begin, kWatched, static_cast<size_t>(memory - begin));
  std::memset(memory + bytes, kWatched, padded - bytes);
  return memory;
}

// What is wrong around one allocation, or nothing.
std::string check(const unsigned char* memory, const Allocation& allocation) {
  if (kAddressSanitizer) return "";
  const unsigned char* begin = allocation.mapped + kPage;
  const unsigned char* end = allocation.mapped + allocation.mapped_bytes - kPage;
  const auto touched = [](unsigned char byte) { return byte != kWatched; };
  const auto problem = [&](ptrdiff_t distance, const char* side) {
    return "a write " + std::to_string(distance) + " bytes " + side + " of " +
           std::to_string(allocation.bytes) + " bytes of device memory";
  };
  const unsigned char* memory_end = memory + allocation.bytes;
  if (const auto* found = std::find_if(memory_end, end, touched); found != end) {
    return problem(found - memory_end, "past the end");
  }
  if (const auto* found = std::find_if(begin, memory, touched); found != memory) {
    return problem(memory - found, "before the begin");
  }
  return "";
}

}  // namespace

Status allocate(size_t bytes, void** pointer) {
  if (bytes == 0) return kInvalidValue;
  if (bytes > kMemoryBytes - used_bytes) return kOutOfMemory;
  Allocation allocation = {bytes, nullptr, 0};
  if (kAddressSanitizer) {
    if (posix_memalign(pointer, kAlignment, bytes) != 0) return kOutOfMemory;
  } else {
    *pointer = map_guarded(bytes, &allocation);
    if (*pointer == nullptr) return kOutOfMemory;
  }
  std::memset(*pointer, 0xFF, bytes);
  allocations[reinterpret_cast<uintptr_t>(*pointer)] = allocation;
  used_bytes += bytes;
  return kSuccess;
}

Status deallocate(void* pointer) {
  const auto found = allocations.find(reinterpret_cast<uintptr_t>(pointer));
  if (found == allocations.end()) {
    return report(kInvalidValue, "%p is freed, and is no allocation", pointer);
  }
  const Allocation allocation = found->second;
  allocations.erase(found);
  used_bytes -= allocation.bytes;
  if (kAddressSanitizer) {
    std::free(pointer);
  } else {
    munmap(allocation.mapped, allocation.mapped_bytes);
  }
  return kSuccess;
}

bool is_allocated(const void* pointer, size_t bytes) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(pointer);
  auto next = allocations.upper_bound(address);
  if (next == allocations.begin()) return false;
  const auto& [begin, allocation] = *std::prev(next);
  return address - begin <= allocation.bytes && bytes <= allocation.bytes - (address - begin);
}

std::string check_allocations() {
  for (const auto& [begin, allocation] : allocations) {
    std::string problem = check(reinterpret_cast<const unsigned char*>(begin), allocation);
    if (!problem.empty()) return problem;
  }
  return "";
}

size_t describe_address(const void* address, char* text, size_t capacity) {
  const auto number = reinterpret_cast<uintptr_t>(address);
  uintptr_t least = UINTPTR_MAX;
  int count = 0;
  for (const auto& [begin, allocation] : allocations) {
    const uintptr_t end = begin + allocation.bytes;
    const uintptr_t distance = number < begin ? begin - number : number - end;
    if (distance >= least) continue;
    least = distance;
    count = std::snprintf(text, capacity, "%zu bytes %s of %zu bytes of device memory",
                          static_cast<size_t>(distance),
                          number < begin ? "before the begin" : "past the end", allocation.bytes);
  }
  return count < 0 ? 0 : static_cast<size_t>(count);
}

}  // namespace on_host
