#include "runtime/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace on_host {
namespace {

constexpr size_t kPage = 4096;

// The last one given back is the first to be used again: threads that never wait share a warm one.
std::vector<void*>& free_stacks() {
  static std::vector<void*> stacks;
  return stacks;
}

}  // namespace

Fiber::Caller Fiber::caller;
Fiber* Fiber::running;

void* Fiber::new_stack() {
  void* mapped = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // The first page is a guard: stacks grow downwards.
  if (mapped == MAP_FAILED || mprotect(mapped, kPage, PROT_NONE) != 0) {
    std::perror("on-host: no memory for a stack");
    std::abort();
  }
  return static_cast<char*>(mapped) + kPage;
}

void Fiber::prepare(void (*function)()) {
  function_ = function;
  if (stack_ == nullptr && !free_stacks().empty()) {
    stack_ = free_stacks().back();
    free_stacks().pop_back();
  }
  if (stack_ == nullptr) stack_ = new_stack();
  if (kThreadSanitizer && tsan_fiber_ == nullptr) tsan_fiber_ = __tsan_create_fiber(0);
  // Stacks begin at different cache sets, else the frames of 1024 threads evict each other.
  const size_t color = reinterpret_cast<uintptr_t>(stack_) / kPage % 61 * 64;
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes - color);
  // A function is entered with the stack pointer at 8 modulo 16, here after its address is popped.
  top -= 4;
  *top = reinterpret_cast<void*>(&Fiber::main);
  stack_pointer_ = top;
}

void Fiber::give_back() {
  stack_pointer_ = nullptr;
  // To ThreadSanitizer a stack is memory of one thread: it stays with its fiber.
  if (kThreadSanitizer) return;
  free_stacks().push_back(stack_);
  stack_ = nullptr;
}

void Fiber::main() {
  if constexpr (kAddressSanitizer) {
    __sanitizer_finish_switch_fiber(nullptr, &caller.stack_bottom, &caller.stack_bytes);
  }
  running->function_();
  running->leave(/*finished=*/true);
}

void Fiber::abandon() {
  if (stack_pointer_ == nullptr) return;
  // Its frames are still there, so the stack is never used again.
  stack_pointer_ = nullptr;
  stack_ = nullptr;
  tsan_fiber_ = nullptr;
}

}  // namespace on_host
