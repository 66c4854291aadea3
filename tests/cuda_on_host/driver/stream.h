// Streams. Work waits in its stream until somebody waits for it, so that a program that does not
// wait finds nothing done.
#pragma once

#include <deque>
#include <functional>

#include "driver/status.h"

namespace on_host {

class Stream {
 public:
  using Work = std::function<Status()>;

  static Stream* create();
  static Status destroy(void* handle);
  // Of a handle, null for the default stream; null if it is none.
  static Stream* find(void* handle);
  // Runs what waits in any stream.
  static void finish_all();

  void add(Work work);
  // Runs what waits. After a failure the rest is dropped, and the failure is told once.
  Status finish();

 private:
  std::deque<Work> waiting_;
  Status failure_ = kSuccess;
};

}  // namespace on_host
