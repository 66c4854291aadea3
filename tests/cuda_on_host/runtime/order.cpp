#include "runtime/order.h"

#include <cstdlib>
#include <cstring>
#include <numeric>

namespace on_host {

constexpr uint64_t kGoldenRatio = 0x9E3779B97F4A7C15u;

Order Order::from_environment() {
  Order order;
  const char* wanted = std::getenv("MEDCAM_ON_HOST_ORDER");
  if (wanted == nullptr || std::strcmp(wanted, "forward") == 0) return order;
  if (std::strcmp(wanted, "reverse") == 0) {
    order.kind_ = Kind::kReverse;
    return order;
  }
  order.kind_ = Kind::kShuffled;
  return order.fork(std::strtoull(wanted, nullptr, 10));
}

Order Order::fork(uint64_t salt) const {
  Order order = *this;
  // Xorshift never leaves 0.
  order.state_ = (state_ ^ (salt + 1) * kGoldenRatio) | 1;
  return order;
}

uint64_t Order::next() {
  state_ ^= state_ << 13;
  state_ ^= state_ >> 7;
  state_ ^= state_ << 17;
  return state_ >> 20;
}

void Order::shuffle(size_t count) {
  if (kind_ != Kind::kShuffled) return;
  offset_ = next() % count;
  factor_ = next() % count | 1;
  while (std::gcd(factor_, count) != 1) factor_ += 2;
}

}  // namespace on_host
