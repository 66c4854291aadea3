// Ends the file that a library of kernels is compiled from: lists its kernels for the driver.
#pragma once

#include <utility>

#include "runtime/kernel_side.h"

namespace on_host {

template <auto kKernel>
struct Entry;

template <typename... Arguments, void (*kKernel)(Arguments...)>
struct Entry<kKernel> {
  // One more, since an array is never empty.
  static constexpr size_t kArgumentBytes[] = {sizeof(Arguments)..., 0};

  template <size_t... kIndices>
  static void call_with(void** arguments, std::index_sequence<kIndices...>) {
    kKernel(*static_cast<Arguments*>(arguments[kIndices])...);
  }

  static void call(void** arguments) {
    call_with(arguments, std::index_sequence_for<Arguments...>());
  }

  static constexpr KernelEntry named(const char* name) {
    return {name, call, kArgumentBytes, sizeof...(Arguments)};
  }
};

// A library without `__shared__` variables has one too.
inline thread_local volatile char touched;
inline void touch() { touched = 1; }

#ifdef ON_HOST_STATIC_SHARED
constexpr bool kThreadLocalShared = false;
#else
constexpr bool kThreadLocalShared = true;
#endif

}  // namespace on_host

// Gives the arrays `extern __shared__ T name[]` their storage; before the kernels.
#define ON_HOST_DYNAMIC_SHARED(name)                                                               \
  alignas(128) thread_local unsigned char                                                          \
      on_host_storage_##name[on_host::kMaxDynamicShared + on_host::kDynamicSharedTail] asm(#name); \
  static unsigned char* on_host_address_##name() { return on_host_storage_##name; }
