// Atomic operations, fences and loads with cache hints.
#pragma once

#include "device/bits.h"
#include "runtime/kernel_side.h"

namespace on_host {

template <size_t kBytes>
struct Word;
template <>
struct Word<4> {
  using Type __attribute__((may_alias)) = uint32_t;
};
template <>
struct Word<8> {
  using Type __attribute__((may_alias)) = uint64_t;
};

// So that a parameter takes its type from the others.
template <typename T>
struct Identity {
  using Type = T;
};
template <typename T>
using Same = typename Identity<T>::Type;

// Sets *address to what `change` makes of it, atomically, and returns what it was. Like in CUDA it
// orders nothing else.
template <typename T, typename Change>
T update(T* address, Change change) {
  using Bits = typename Word<sizeof(T)>::Type;
  Bits* word = reinterpret_cast<Bits*>(address);
  Bits before = __atomic_load_n(word, __ATOMIC_RELAXED);
  for (;;) {
    const T value = from_bits<T>(before);
    const Bits after = static_cast<Bits>(to_bits<T>(change(value)));
    if (__atomic_compare_exchange_n(word, &before, after, /*weak=*/false, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED)) {
      return value;
    }
  }
}

}  // namespace on_host

template <typename T>
T atomicAdd(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return static_cast<T>(before + value); });
}

template <typename T>
T atomicSub(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return static_cast<T>(before - value); });
}

template <typename T>
T atomicMin(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return value < before ? value : before; });
}

template <typename T>
T atomicMax(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return value > before ? value : before; });
}

template <typename T>
T atomicAnd(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return before & value; });
}

template <typename T>
T atomicOr(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return before | value; });
}

template <typename T>
T atomicXor(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return before ^ value; });
}

template <typename T>
T atomicExch(T* address, on_host::Same<T> value) {
  return on_host::update(address, [=](T) { return value; });
}

template <typename T>
T atomicCAS(T* address, on_host::Same<T> expected, on_host::Same<T> value) {
  return on_host::update(address, [=](T before) { return before == expected ? value : before; });
}

inline unsigned atomicInc(unsigned* address, unsigned last) {
  return on_host::update(address, [=](unsigned before) { return before >= last ? 0 : before + 1; });
}

inline void __threadfence() { on_host::thread_fence(); }
inline void __threadfence_block() { on_host::thread_fence(); }

template <typename T>
T __ldg(const T* address) {
  return *address;
}

template <typename T>
T __ldcs(const T* address) {
  return *address;
}

template <typename T>
T __ldcg(const T* address) {
  return *address;
}

template <typename T>
void __stcs(T* address, on_host::Same<T> value) {
  *address = value;
}
