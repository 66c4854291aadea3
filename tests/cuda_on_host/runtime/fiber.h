// A call stack that can be left and entered again: each CUDA thread runs on one.
#pragma once

namespace on_host {

class Fiber {
 public:
  // Enters the fiber where it was left, or calls `function` on it if it is new. Comes back when the
  // fiber suspends (false) or the function has returned (true); then it is new again.
  bool resume(void (*function)());

  // Goes back to the caller of resume(). Called on the fiber itself.
  void suspend();

  // Makes a suspended fiber new, without ever finishing what it runs.
  void abandon();

 private:
  static void main();
  void leave(bool finished);
  void prepare();

  void* stack_pointer_ = nullptr;  // null: new
  void* stack_ = nullptr;
  void* fake_stack_ = nullptr;  // AddressSanitizer's
  void* tsan_fiber_ = nullptr;
  void (*function_)() = nullptr;
  bool finished_ = false;
};

}  // namespace on_host
