// A call stack that can be left and entered again: each CUDA thread runs on one.
//
// What switches is inline: after a switch every return of a function is mispredicted, and those
// cost more than the switch.
#pragma once

#include <cstddef>

#include "runtime/sanitizers.h"

#ifndef __x86_64__
#error "the switch between fibers is written for x86-64"
#endif

namespace on_host {

// Stores the stack pointer in *from, and goes on where `to` was stored.
__attribute__((always_inline)) inline void switch_stacks(void** from, void* to) {
  // Below the stack pointer the compiler may keep 128 bytes of its own. All registers but rbp,
  // which it may need to find the others, are saved by it where it uses them.
  asm volatile(R"(
    lea -128(%%rsp), %%rsp
    push %%rbp
    lea 1f(%%rip), %%rcx
    push %%rcx
    mov %%rsp, (%%rdi)
    mov %%rsi, %%rsp
    pop %%rcx
    jmp *%%rcx
  1:
    pop %%rbp
    lea 128(%%rsp), %%rsp
  )"
               : "+D"(from), "+S"(to)
               :
               : "rax", "rbx", "rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15",
                 "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9",
                 "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "cc", "memory");
}

class Fiber {
 public:
  // Enters the fiber where it was left, or calls `function` on it if it is new. Comes back when the
  // fiber suspends (false) or the function has returned (true); then it is new again.
  bool resume(void (*function)()) {
    if (stack_pointer_ == nullptr) prepare(function);
    running = this;
    if constexpr (kAddressSanitizer) {
      __sanitizer_start_switch_fiber(&caller.fake_stack, stack_, kStackBytes);
    }
    if constexpr (kThreadSanitizer) {
      caller.tsan_fiber = __tsan_get_current_fiber();
      // No order between fibers comes from switching: only barriers make one.
      __tsan_switch_to_fiber(tsan_fiber_, __tsan_switch_to_fiber_no_sync);
    }
    switch_stacks(&caller.stack_pointer, stack_pointer_);
    if constexpr (kAddressSanitizer) {
      __sanitizer_finish_switch_fiber(caller.fake_stack, nullptr, nullptr);
    }
    if (!finished_) return false;
    give_back();
    return true;
  }

  // Goes back to the caller of resume(). Called on the fiber itself.
  void suspend() { leave(/*finished=*/false); }

  // Makes a suspended fiber new, without ever finishing what it runs.
  void abandon();

 private:
  // Who resumed the running fiber. One block runs at a time, so there is one.
  struct Caller {
    void* stack_pointer;
    void* fake_stack;
    const void* stack_bottom;
    size_t stack_bytes;
    void* tsan_fiber;
  };

  // Sanitizers write their reports on the stack of the thread that they report.
  static constexpr size_t kStackBytes = (kAddressSanitizer || kThreadSanitizer ? 512 : 64) << 10;

  static void main();
  static void* new_stack();
  void prepare(void (*function)());
  void give_back();

  void leave(bool finished) {
    finished_ = finished;
    if constexpr (kAddressSanitizer) {
      __sanitizer_start_switch_fiber(finished ? nullptr : &fake_stack_, caller.stack_bottom,
                                     caller.stack_bytes);
    }
    if constexpr (kThreadSanitizer) {
      __tsan_switch_to_fiber(caller.tsan_fiber, __tsan_switch_to_fiber_no_sync);
    }
    switch_stacks(&stack_pointer_, caller.stack_pointer);
    if constexpr (kAddressSanitizer) {
      __sanitizer_finish_switch_fiber(fake_stack_, &caller.stack_bottom, &caller.stack_bytes);
    }
  }

  static Caller caller;
  static Fiber* running;

  void* stack_pointer_ = nullptr;  // null: new
  void* stack_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
  void (*function_)() = nullptr;
  bool finished_ = false;
};

}  // namespace on_host
