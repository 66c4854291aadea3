// In which order threads, warps and blocks run. No result may depend on it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace on_host {

class Order {
 public:
  // That of MEDCAM_ON_HOST_ORDER: `forward` (also if it is not set), `reverse`, or the seed, a
  // number, of a shuffle that changes at each step.
  static Order from_environment();

  // The same kind of order, with its own sequence of shuffles.
  Order fork(uint64_t salt) const;

  // Draws the order of `count` items anew...
  void shuffle(size_t count);
  // ...and which of them is the `i`-th.
  size_t at(size_t i, size_t count) const {
    if (kind_ == Kind::kForward) return i;
    return kind_ == Kind::kReverse ? count - 1 - i : (i * factor_ + offset_) % count;
  }

 private:
  enum class Kind { kForward, kReverse, kShuffled };

  uint64_t next();

  Kind kind_ = Kind::kForward;
  uint64_t state_ = 1;
  // An affine map modulo the count, with a factor that shares no divisor with it.
  size_t factor_ = 1;
  size_t offset_ = 0;
};

}  // namespace on_host
