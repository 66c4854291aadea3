// Which sanitizer the kernels are built with. The runtime itself is built without: it only tells
// the sanitizer what it does to stacks and memory, so that the reports are about kernels.
#pragma once

#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#include <sanitizer/tsan_interface.h>

namespace on_host {

#ifdef ON_HOST_ADDRESS_SANITIZER
constexpr bool kAddressSanitizer = true;
#else
constexpr bool kAddressSanitizer = false;
#endif

#ifdef ON_HOST_THREAD_SANITIZER
constexpr bool kThreadSanitizer = true;
#else
constexpr bool kThreadSanitizer = false;
#endif

// Under ThreadSanitizer, what came before a release of an address is ordered before what comes
// after an acquire of it.
inline void release(void* address) {
  if constexpr (kThreadSanitizer) __tsan_release(address);
}

inline void acquire(void* address) {
  if constexpr (kThreadSanitizer) __tsan_acquire(address);
}

}  // namespace on_host
