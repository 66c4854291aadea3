#include "driver/stream.h"

#include <set>
#include <utility>

namespace on_host {
namespace {

Stream default_stream;
std::set<Stream*> streams;

}  // namespace

Stream* Stream::create() { return *streams.insert(new Stream).first; }

Stream* Stream::find(void* handle) {
  if (handle == nullptr) return &default_stream;
  const auto found = streams.find(static_cast<Stream*>(handle));
  return found == streams.end() ? nullptr : *found;
}

Status Stream::destroy(void* handle) {
  Stream* stream = find(handle);
  if (stream == nullptr || handle == nullptr) return kInvalidHandle;
  const Status status = stream->finish();
  streams.erase(stream);
  delete stream;
  return status;
}

void Stream::finish_all() {
  // A failure stays with its stream, for who waits for that one.
  for (Stream* stream : streams) stream->failure_ = stream->finish();
  default_stream.failure_ = default_stream.finish();
}

void Stream::add(Work work) { waiting_.push_back(std::move(work)); }

Status Stream::finish() {
  while (failure_ == kSuccess && !waiting_.empty()) {
    const Work work = std::move(waiting_.front());
    waiting_.pop_front();
    failure_ = work();
  }
  waiting_.clear();
  return std::exchange(failure_, kSuccess);
}

}  // namespace on_host
