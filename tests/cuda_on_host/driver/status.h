// Results of the driver's functions, as cuda.h numbers them.
#pragma once

namespace on_host {

enum Status : int {
  kSuccess = 0,
  kInvalidValue = 1,
  kOutOfMemory = 2,
  kInvalidDevice = 101,
  kInvalidImage = 200,
  kNoBinary = 209,
  kInvalidHandle = 400,
  kNotFound = 500,
  kLaunchOutOfResources = 701,
  kLaunchFailed = 719,
};

// Says on the standard error what an error is about, and returns it: the driver's own errors are
// but a number.
Status report(Status status, const char* format, ...) __attribute__((format(printf, 2, 3)));

}  // namespace on_host
