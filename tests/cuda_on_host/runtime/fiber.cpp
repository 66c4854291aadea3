#include "runtime/fiber.h"

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "runtime/sanitizers.h"

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

// Saves the registers that a function must keep on the stack, stores the stack pointer in *from,
// and goes on where `to` was stored. It ends in a jump: a return would defeat the return predictor.
extern "C" void on_host_switch(void** from, void* to);
asm(R"(
  .pushsection .text
  .hidden on_host_switch
  .globl on_host_switch
  .type on_host_switch, @function
on_host_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp, (%rdi)
  mov %rsi, %rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  pop %rcx
  jmp *%rcx
  .size on_host_switch, . - on_host_switch
  .popsection
)");

namespace on_host {
namespace {

constexpr size_t kPage = 4096;
constexpr size_t kSavedRegisters = 6;
// Sanitizers write their reports on the stack of the thread that they report.
constexpr size_t kStackBytes = (kAddressSanitizer || kThreadSanitizer ? 512 : 64) << 10;

// Who resumed the running fiber. One block runs at a time, so there is one.
struct Caller {
  void* stack_pointer;
  void* fake_stack;
  const void* stack_bottom;
  size_t stack_bytes;
  void* tsan_fiber;
};

Caller caller;
Fiber* running;

// The last one given back is the first to be used again: threads that never wait share a warm one.
std::vector<void*>& free_stacks() {
  static std::vector<void*> stacks;
  return stacks;
}

void* new_stack() {
  void* mapped = mmap(nullptr, kPage + kStackBytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  // The first page is a guard: stacks grow downwards.
  if (mapped == MAP_FAILED || mprotect(mapped, kPage, PROT_NONE) != 0) {
    std::perror("on-host: no memory for a stack");
    std::abort();
  }
  return static_cast<char*>(mapped) + kPage;
}

}  // namespace

void Fiber::prepare() {
  if (stack_ == nullptr && !free_stacks().empty()) {
    stack_ = free_stacks().back();
    free_stacks().pop_back();
  }
  if (stack_ == nullptr) stack_ = new_stack();
  if (kThreadSanitizer && tsan_fiber_ == nullptr) tsan_fiber_ = __tsan_create_fiber(0);
  // Stacks begin at different cache sets, else the frames of 1024 threads evict each other.
  const size_t color = reinterpret_cast<uintptr_t>(stack_) / kPage % 61 * 64;
  void** top = reinterpret_cast<void**>(static_cast<char*>(stack_) + kStackBytes - color);
  // A function is entered with the stack pointer at 8 modulo 16.
  top -= 3;
  *--top = reinterpret_cast<void*>(&Fiber::main);
  stack_pointer_ = top - kSavedRegisters;
}

bool Fiber::resume(void (*function)()) {
  if (stack_pointer_ == nullptr) {
    function_ = function;
    finished_ = false;
    prepare();
  }
  running = this;
  if constexpr (kAddressSanitizer) {
    __sanitizer_start_switch_fiber(&caller.fake_stack, stack_, kStackBytes);
  }
  if constexpr (kThreadSanitizer) {
    caller.tsan_fiber = __tsan_get_current_fiber();
    // No order between fibers comes from switching: only barriers make one.
    __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
  }
  on_host_switch(&caller.stack_pointer, stack_pointer_);
  if constexpr (kAddressSanitizer) {
    __sanitizer_finish_switch_fiber(caller.fake_stack, nullptr, nullptr);
  }
  if (!finished_) return false;
  stack_pointer_ = nullptr;
  // To ThreadSanitizer a stack is memory of one thread: it stays with its fiber.
  if (!kThreadSanitizer) {
    free_stacks().push_back(stack_);
    stack_ = nullptr;
  }
  return true;
}

void Fiber::suspend() { leave(/*finished=*/false); }

void Fiber::leave(bool finished) {
  finished_ = finished;
  if constexpr (kAddressSanitizer) {
    __sanitizer_start_switch_fiber(finished ? nullptr : &fake_stack_, caller.stack_bottom,
                                   caller.stack_bytes);
  }
  if constexpr (kThreadSanitizer) {
    __tsan_switch_to_fiber(caller.tsan_fiber, __tsan_switch_to_fiber_no_sync);
  }
  on_host_switch(&stack_pointer_, caller.stack_pointer);
  if constexpr (kAddressSanitizer) {
    __sanitizer_finish_switch_fiber(fake_stack_, &caller.stack_bottom, &caller.stack_bytes);
  }
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
