#include "runtime/block.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "runtime/sanitizers.h"

namespace on_host {
namespace {

Block* running_block;
char ended;
char fence;

bool same(CallSite a, CallSite b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string text(CallSite site) { return std::string(site.file) + ":" + std::to_string(site.line); }

std::string hexadecimal(uint32_t mask) {
  char digits[16];
  std::snprintf(digits, sizeof digits, "%08x", mask);
  return digits;
}

std::string text(uint3 index) {
  return "(" + std::to_string(index.x) + "," + std::to_string(index.y) + "," +
         std::to_string(index.z) + ")";
}

// Calls `visit` with the index of each bit that is set.
template <typename Visit>
void for_each_lane(uint32_t mask, Visit visit) {
  for (; mask != 0; mask &= mask - 1) visit(__builtin_ctz(mask));
}

}  // namespace

BuiltIn built_in;

// Flat: see fiber.h.
[[gnu::flatten]] Votes block_barrier(bool vote, CallSite site) {
  return running_block->block_barrier(vote, site);
}

[[gnu::flatten]] uint64_t warp_function(WarpFunction function, uint32_t mask, uint64_t value,
                                        int source, CallSite site) {
  return running_block->warp_function(function, mask, value, source, site);
}

void thread_fence() {
  acquire(&fence);
  release(&fence);
}

void Block::wait() { acquire(&ended); }

void Block::thread_main() {
  acquire(&running_block->begun_);
  running_block->call_();
  release(&ended);
}

void Block::reset() {
  const dim3 size = built_in.block_size;
  thread_count_ = static_cast<int>(size.x * size.y * size.z);
  warp_count_ = (thread_count_ + kWarpSize - 1) / kWarpSize;
  for (int t = 0; t < thread_count_; ++t) {
    Thread& thread = threads_[t];
    const unsigned i = static_cast<unsigned>(t);
    thread.index = {i % size.x, i / size.x % size.y, i / (size.x * size.y)};
    thread.warp = t / kWarpSize;
    thread.lane = t % kWarpSize;
    thread.state = State::kReady;
  }
  for (int w = 0; w < warp_count_; ++w) {
    const int lanes = thread_count_ - w * kWarpSize;
    warps_[w].arrived = 0;
    warps_[w].ended = lanes < kWarpSize ? ~0u << lanes : 0;
    warps_[w].phase = 0;
  }
  live_ = thread_count_;
  phase_ = 0;
  problem_.clear();
}

std::string Block::run(uint3 block_index, void (*call)(), Order order) {
  running_block = this;
  index_ = block_index;
  built_in.block_index = block_index;
  call_ = call;
  reset();
  release(&begun_);
  Order of_lanes = order.fork(0);
  while (live_ > 0 && problem_.empty()) {
    bool ran = false;
    order.shuffle(static_cast<size_t>(warp_count_));
    for (int i = 0; i < warp_count_; ++i) {
      const size_t warp = order.at(static_cast<size_t>(i), static_cast<size_t>(warp_count_));
      ran |= run_warp(static_cast<int>(warp), of_lanes);
    }
    if (!ran) open_barrier();
  }
  if (!problem_.empty()) {
    for (int t = 0; t < thread_count_; ++t) threads_[t].fiber.abandon();
  }
  return problem_;
}

// Runs a warp until each of its threads has ended or waits for other warps (or for ever). Whether
// any ran.
[[gnu::flatten]] bool Block::run_warp(int warp, Order& order) {
  const size_t first = static_cast<size_t>(warp) * kWarpSize;
  const size_t lanes = std::min<size_t>(kWarpSize, static_cast<size_t>(thread_count_) - first);
  bool any = false;
  for (bool ran = true; ran;) {
    ran = false;
    order.shuffle(lanes);
    for (size_t i = 0; i < lanes; ++i) {
      Thread& thread = threads_[first + order.at(i, lanes)];
      if (thread.state != State::kReady) continue;
      resume(thread);
      ran = true;
    }
    any |= ran;
  }
  return any;
}

void Block::resume(Thread& thread) {
  running_ = &thread;
  built_in.thread_index = thread.index;
  built_in.lane = thread.lane;
  if (!thread.fiber.resume(&Block::thread_main)) return;
  thread.state = State::kEnded;
  --live_;
  Warp& warp = warps_[thread.warp];
  warp.ended |= 1u << thread.lane;
  // Lanes that waited for this one wait no longer.
  for_each_lane(warp.arrived, [&](int lane) {
    if (warp.arrived >> lane & 1) complete(warp, warp.calls[lane].mask);
  });
}

Votes Block::block_barrier(bool vote, CallSite site) {
  Thread& thread = *running_;
  const int phase = phase_;
  thread.state = State::kAtBlockBarrier;
  thread.site = site;
  thread.vote = vote;
  release(&ordered_[phase]);
  thread.fiber.suspend();
  acquire(&ordered_[phase]);
  return votes_[phase];
}

// Every live thread waits: lets them pass the barrier if all are at the same one.
void Block::open_barrier() {
  const std::string problem = stuck();
  if (!problem.empty()) return fail(problem);
  Votes& votes = votes_[phase_];
  votes = {0, 0};
  for (int t = 0; t < thread_count_; ++t) {
    Thread& thread = threads_[t];
    if (thread.state != State::kAtBlockBarrier) continue;
    ++(thread.vote ? votes.yes : votes.no);
    thread.state = State::kReady;
  }
  phase_ ^= 1;
}

// Why the barrier cannot open, or nothing.
std::string Block::stuck() const {
  const Thread* first = nullptr;
  for (int t = 0; t < thread_count_; ++t) {
    const Thread& thread = threads_[t];
    if (thread.state == State::kAtWarpFunction) {
      return "deadlock: " + describe(thread) + " for lanes of mask " +
             hexadecimal(warps_[thread.warp].calls[thread.lane].mask) + " that do not come";
    }
    if (thread.state != State::kAtBlockBarrier) continue;
    if (first == nullptr) first = &thread;
    if (!same(first->site, thread.site)) {
      return "divergent __syncthreads: " + describe(*first) + ", but " + describe(thread);
    }
  }
  return "";
}

uint64_t Block::warp_function(WarpFunction function, uint32_t mask, uint64_t value, int source,
                              CallSite site) {
  Thread& thread = *running_;
  Warp& warp = warps_[thread.warp];
  thread.site = site;
  if (!(mask >> thread.lane & 1)) {
    fail_call(thread.lane, {function, mask, 0, 0, 0, site}, nullptr);
    mask |= 1u << thread.lane;
  }
  warp.calls[thread.lane] = {function, mask, value, source, 0, site};
  warp.arrived |= 1u << thread.lane;
  thread.state = State::kAtWarpFunction;
  const int phase = warp.phase;
  // Of the warp functions only __syncwarp orders memory.
  const bool orders = function == WarpFunction::kBarrier;
  if (orders) release(&warp.ordered[phase]);
  if (!complete(warp, mask)) thread.fiber.suspend();
  if (orders) acquire(&warp.ordered[phase]);
  return warp.calls[thread.lane].result;
}

// Answers the lanes of `mask` if all of them that live have arrived. Whether they had.
bool Block::complete(Warp& warp, uint32_t mask) {
  const uint32_t lanes = mask & warp.arrived;
  if (lanes == 0 || (mask & ~(warp.arrived | warp.ended)) != 0) return false;
  Thread* threads = &threads_[(&warp - warps_.get()) * kWarpSize];
  const int first = __builtin_ctz(lanes);
  const Call& expected = warp.calls[first];
  uint64_t ballot = 0;
  if (expected.function == WarpFunction::kBallot) {
    for_each_lane(lanes, [&](int lane) {
      if (warp.calls[lane].value != 0) ballot |= uint64_t{1} << lane;
    });
  }
  for_each_lane(lanes, [&](int lane) {
    Call& call = warp.calls[lane];
    if (call.mask != mask || call.function != expected.function ||
        !same(call.site, expected.site)) {
      fail_call(lane, call, &expected);
    }
    const bool has_source = lanes >> call.source & 1;
    const uint64_t shuffled = has_source ? warp.calls[call.source].value : ~uint64_t{0};
    call.result = call.function == WarpFunction::kShuffle ? shuffled : ballot;
    threads[lane].state = State::kReady;
  });
  warp.arrived &= ~lanes;
  warp.phase ^= 1;
  return true;
}

// What is wrong with the call of a lane: that it is not as the one of another lane, or (null) that
// its mask leaves it out.
void Block::fail_call(int lane, const Call& call, const Call* other) {
  std::string problem = "divergent warp function: lane " + std::to_string(lane) + " calls one at " +
                        text(call.site) + " with mask " + hexadecimal(call.mask);
  problem += other == nullptr ? ", which leaves it out"
                              : ", another lane at " + text(other->site) + " with mask " +
                                    hexadecimal(other->mask);
  fail(problem);
}

void Block::fail(const std::string& problem) {
  if (problem_.empty()) problem_ = "block " + text(index_) + ": " + problem;
}

std::string Block::describe(const Thread& thread) const {
  return "thread " + text(thread.index) + " waits at " + text(thread.site);
}

}  // namespace on_host
