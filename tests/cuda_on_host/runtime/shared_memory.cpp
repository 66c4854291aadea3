#include "runtime/shared_memory.h"

#include <link.h>

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "runtime/sanitizers.h"

namespace on_host {
namespace {

constexpr size_t kDynamicBytes = kMaxDynamicShared + kDynamicSharedTail;

struct Search {
  uintptr_t inside;  // an address in the library
  unsigned char* begin;
  unsigned char* end;
};

// Whether this is the library that is searched for; then it notes its thread-local variables.
int visit_library(dl_phdr_info* library, size_t, void* data) {
  auto* search = static_cast<Search*>(data);
  bool found = false;
  const ElfW(Phdr)* variables = nullptr;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const ElfW(Phdr)& part = library->dlpi_phdr[i];
    const uintptr_t begin = library->dlpi_addr + part.p_vaddr;
    if (part.p_type == PT_TLS) variables = &part;
    found |= part.p_type == PT_LOAD && search->inside - begin < part.p_memsz;
  }
  if (!found) return 0;
  if (variables != nullptr) {
    search->begin = static_cast<unsigned char*>(library->dlpi_tls_data);
    search->end = search->begin + variables->p_memsz;
  }
  return 1;
}

}  // namespace

SharedMemory::SharedMemory(const KernelModule& module, size_t dynamic_bytes)
    : module_(module), dynamic_bytes_(dynamic_bytes) {
  module.touch_shared();
  Search search = {reinterpret_cast<uintptr_t>(&module), nullptr, nullptr};
  // To ThreadSanitizer the variables are those of a new thread with each block.
  if (module.thread_local_shared && !kThreadSanitizer) dl_iterate_phdr(visit_library, &search);
  begin_ = search.begin;
  end_ = search.end;
  if constexpr (kAddressSanitizer) {
    for (size_t i = 0; i < module_.dynamic_shared_count; ++i) {
      unsigned char* dynamic = module_.dynamic_shared[i]();
      __asan_poison_memory_region(dynamic + dynamic_bytes_, kDynamicBytes - dynamic_bytes_);
    }
  }
}

SharedMemory::~SharedMemory() {
  if constexpr (!kAddressSanitizer) return;
  // Memory of the thread, which the OS will take back.
  for (size_t i = 0; i < module_.dynamic_shared_count; ++i) {
    __asan_unpoison_memory_region(module_.dynamic_shared[i](), kDynamicBytes);
  }
}

void SharedMemory::poison() const {
  // All but what is unused of the dynamic arrays, which are much larger than the rest.
  unsigned char* from = begin_;
  while (from < end_) {
    unsigned char* to = end_;
    unsigned char* next = end_;
    for (size_t i = 0; i < module_.dynamic_shared_count; ++i) {
      unsigned char* dynamic = module_.dynamic_shared[i]();
      if (dynamic < from || dynamic >= to) continue;
      // Under AddressSanitizer what is behind the dynamic part must not be touched.
      to = dynamic + dynamic_bytes_ + (kAddressSanitizer ? 0 : kDynamicSharedTail);
      next = dynamic + kDynamicBytes;
    }
    std::memset(from, 0xFF, static_cast<size_t>(to - from));
    from = next;
  }
}

std::string SharedMemory::check() const {
  // AddressSanitizer has seen more; ThreadSanitizer's runs are not poisoned.
  if (kAddressSanitizer || kThreadSanitizer) return "";
  for (size_t i = 0; i < module_.dynamic_shared_count; ++i) {
    const unsigned char* end = module_.dynamic_shared[i]() + dynamic_bytes_;
    const auto touched = [](unsigned char byte) { return byte != 0xFF; };
    const unsigned char* found = std::find_if(end, end + kDynamicSharedTail, touched);
    if (found == end + kDynamicSharedTail) continue;
    return "a write " + std::to_string(found - end) + " bytes past the end of the " +
           std::to_string(dynamic_bytes_) + " bytes of dynamic shared memory";
  }
  return "";
}

}  // namespace on_host
