// The functions of libcuda.so.1 that the project calls, by their names in the library.
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>

#include "driver/device.h"
#include "driver/memory.h"
#include "driver/module.h"
#include "driver/status.h"
#include "driver/stream.h"
#include "runtime/grid.h"
#include "runtime/sanitizers.h"

using on_host::Function;
using on_host::Module;
using on_host::Status;
using on_host::Stream;

namespace on_host {
namespace {

// One call at a time.
std::mutex calls;
// Calls so far, in the order of on_host_counts.
enum Counted { kSynchronisations, kAllocations, kFrees, kCopies, kFills, kLaunches, kCounted };
std::atomic<unsigned long long> counts[kCounted];
int primary_context;
thread_local void* current_context;

// Says which thread of which kernel touched what. The process ends: the kernel cannot go on.
void on_bad_access(int, siginfo_t* information, void*) {
  // The kernel of the OS gives no address where the access was misaligned.
  const bool misaligned = information->si_code == SI_KERNEL;
  char text[512];
  size_t length = static_cast<size_t>(std::snprintf(text, sizeof text, "on-host: %s access by ",
                                                    misaligned ? "misaligned" : "bad"));
  length += describe_running(text + length, sizeof text - length);
  if (!misaligned) {
    text[length++] = ' ';
    length += describe_address(information->si_addr, text + length, sizeof text - length);
  }
  text[length++] = '\n';
  static_cast<void>(!write(STDERR_FILENO, text, length));
  _exit(128 + SIGSEGV);
}

void watch_accesses() {
  struct sigaction action = {};
  action.sa_sigaction = on_bad_access;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

// A copy or fill of device memory that waits in a stream.
template <typename Work>
Status enqueue(void* stream_handle, const void* device_memory, size_t bytes, Work work) {
  const std::lock_guard<std::mutex> lock(calls);
  Stream* stream = Stream::find(stream_handle);
  if (stream == nullptr) return kInvalidHandle;
  if (!is_allocated(device_memory, bytes)) {
    return report(kInvalidValue, "%zu bytes at %p are not of one allocation", bytes, device_memory);
  }
  stream->add([=] {
    work();
    return kSuccess;
  });
  return kSuccess;
}

// A number that a test sets, or `otherwise`.
int variable(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::atoi(text);
}

// The error that a test wants for what is loaded.
Status refusal(const char* name) {
  const auto status = static_cast<Status>(variable(name, kSuccess));
  if (status == kSuccess) return kSuccess;
  return report(status, "an image is refused: %s is %d", name, status);
}

int attribute_of_device(int attribute) {
  switch (attribute) {
    case 1:  // MAX_THREADS_PER_BLOCK
    case 2:  // MAX_BLOCK_DIM_X
    case 3:  // MAX_BLOCK_DIM_Y
      return kMaxThreads;
    case 4:  // MAX_BLOCK_DIM_Z
      return 64;
    case 5:  // MAX_GRID_DIM_X, _Y, _Z
    case 6:
    case 7:
      return static_cast<int>(kMaxGrid[attribute - 5]);
    case 8:  // MAX_SHARED_MEMORY_PER_BLOCK
      return static_cast<int>(kSharedBytes);
    case 10:  // WARP_SIZE
      return kWarpSize;
    case 16:  // MULTIPROCESSOR_COUNT
      return kMultiprocessors;
    case 75:  // COMPUTE_CAPABILITY_MAJOR, _MINOR
    case 76:
      return kComputeCapability[attribute - 75];
    case 97:  // MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
      return static_cast<int>(kMaxDynamicShared);
    default:
      return 0;
  }
}

}  // namespace

Status report(Status status, const char* format, ...) {
  char text[1024];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  std::fprintf(stderr, "on-host: %s\n", text);
  return status;
}

}  // namespace on_host

extern "C" {

Status cuInit(unsigned) {
  static std::once_flag once;
  std::call_once(once, [] {
    // AddressSanitizer reports bad accesses itself.
    if (!on_host::kAddressSanitizer) on_host::watch_accesses();
    on_host::load_libraries();
  });
  return on_host::kSuccess;
}

// NVRTC asks for this where it finds a driver, and can do without.
Status cuGetExportTable(const void** table, const void*) {
  *table = nullptr;
  return on_host::kNotFound;
}

Status cuGetErrorName(Status status, const char** name) {
  switch (status) {
    case on_host::kInvalidValue:
      *name = "CUDA_ERROR_INVALID_VALUE";
      break;
    case on_host::kOutOfMemory:
      *name = "CUDA_ERROR_OUT_OF_MEMORY";
      break;
    case on_host::kInvalidImage:
      *name = "CUDA_ERROR_INVALID_IMAGE";
      break;
    case on_host::kNoBinary:
      *name = "CUDA_ERROR_NO_BINARY_FOR_GPU";
      break;
    case on_host::kLaunchFailed:
      *name = "CUDA_ERROR_LAUNCH_FAILED";
      break;
    default:
      *name = "CUDA_ERROR";
  }
  return on_host::kSuccess;
}

Status cuGetErrorString(Status, const char** text) {
  *text = "the standard error says more";
  return on_host::kSuccess;
}

// ---- The device and its context.

// By default newer than every NVRTC.
Status cuDriverGetVersion(int* version) {
  *version = on_host::variable("MEDCAM_ON_HOST_DRIVER_VERSION", 99000);
  return on_host::kSuccess;
}

Status cuDeviceGetCount(int* count) {
  *count = 1;
  return on_host::kSuccess;
}

Status cuDeviceGet(int* device, int ordinal) {
  *device = ordinal;
  return ordinal == 0 ? on_host::kSuccess : on_host::kInvalidDevice;
}

Status cuDeviceGetName(char* name, int capacity, int) {
  std::snprintf(name, static_cast<size_t>(capacity), "%s", on_host::kDeviceName);
  return on_host::kSuccess;
}

Status cuDeviceTotalMem_v2(size_t* bytes, int) {
  *bytes = on_host::kMemoryBytes;
  return on_host::kSuccess;
}

Status cuDeviceGetAttribute(int* value, int attribute, int) {
  *value = on_host::attribute_of_device(attribute);
  return on_host::kSuccess;
}

Status cuDevicePrimaryCtxRetain(void** context, int) {
  *context = &on_host::primary_context;
  return on_host::kSuccess;
}

Status cuCtxGetCurrent(void** context) {
  *context = on_host::current_context;
  return on_host::kSuccess;
}

Status cuCtxSetCurrent(void* context) {
  on_host::current_context = context;
  return on_host::kSuccess;
}

// ---- Streams.

Status cuStreamCreate(void** stream, unsigned) {
  const std::lock_guard<std::mutex> lock(on_host::calls);
  *stream = Stream::create();
  return on_host::kSuccess;
}

Status cuStreamDestroy_v2(void* stream) {
  const std::lock_guard<std::mutex> lock(on_host::calls);
  return Stream::destroy(stream);
}

Status cuStreamSynchronize(void* handle) {
  ++on_host::counts[on_host::kSynchronisations];
  const std::lock_guard<std::mutex> lock(on_host::calls);
  Stream* stream = Stream::find(handle);
  return stream == nullptr ? on_host::kInvalidHandle : stream->finish();
}

// ---- Memory.

Status cuMemAlloc_v2(void** pointer, size_t bytes) {
  ++on_host::counts[on_host::kAllocations];
  const std::lock_guard<std::mutex> lock(on_host::calls);
  return on_host::allocate(bytes, pointer);
}

Status cuMemFree_v2(void* pointer) {
  ++on_host::counts[on_host::kFrees];
  const std::lock_guard<std::mutex> lock(on_host::calls);
  // The driver waits for kernels that may use the memory.
  Stream::finish_all();
  return on_host::deallocate(pointer);
}

Status cuMemcpyHtoDAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  ++on_host::counts[on_host::kCopies];
  return on_host::enqueue(stream, to, bytes, [=] { std::memcpy(to, from, bytes); });
}

Status cuMemcpyDtoHAsync_v2(void* to, const void* from, size_t bytes, void* stream) {
  ++on_host::counts[on_host::kCopies];
  return on_host::enqueue(stream, from, bytes, [=] { std::memcpy(to, from, bytes); });
}

Status cuMemsetD8Async(void* to, unsigned char value, size_t bytes, void* stream) {
  ++on_host::counts[on_host::kFills];
  return on_host::enqueue(stream, to, bytes, [=] { std::memset(to, value, bytes); });
}

// ---- Kernels.

Status cuModuleLoadData(Module** module, const void* image) {
  const std::lock_guard<std::mutex> lock(on_host::calls);
  const Status refusal = on_host::refusal("MEDCAM_ON_HOST_LOAD");
  if (refusal != on_host::kSuccess) return refusal;
  return on_host::load_module(image, module);
}

Status cuModuleGetFunction(Function** function, Module* module, const char* name) {
  const Status refusal = on_host::refusal("MEDCAM_ON_HOST_LOAD_LATE");
  if (refusal != on_host::kSuccess) return refusal;
  const auto found = module->functions.find(name);
  if (found == module->functions.end()) {
    return on_host::report(on_host::kNotFound, "the module has no kernel %s", name);
  }
  *function = &found->second;
  return on_host::kSuccess;
}

Status cuFuncGetAttribute(int* value, int attribute, const Function* function) {
  switch (attribute) {
    case 0:  // MAX_THREADS_PER_BLOCK
      *value = static_cast<int>(function->max_threads());
      break;
    case 1:  // SHARED_SIZE_BYTES
      *value = static_cast<int>(function->image.shared_bytes);
      break;
    case 4:  // NUM_REGS
      *value = static_cast<int>(function->image.registers);
      break;
    default:
      *value = 0;
  }
  return on_host::kSuccess;
}

Status cuFuncSetAttribute(Function* function, int attribute, int value) {
  constexpr int kMaxDynamicSharedSizeBytes = 8;
  const size_t bytes = static_cast<size_t>(value);
  if (attribute != kMaxDynamicSharedSizeBytes ||
      bytes + function->image.shared_bytes > on_host::kMaxDynamicShared) {
    return on_host::kInvalidValue;
  }
  function->max_dynamic_shared = bytes;
  return on_host::kSuccess;
}

Status cuFuncGetParamCount(const Function* function, size_t* count) {
  *count = function->image.parameters.size();
  return on_host::kSuccess;
}

Status cuFuncGetParamInfo(const Function* function, size_t index, size_t* offset, size_t* bytes) {
  const auto& parameters = function->image.parameters;
  if (index >= parameters.size()) {
    return on_host::report(on_host::kInvalidValue, "%s has no parameter %zu",
                           function->name.c_str(), index);
  }
  *offset = parameters[index].offset;
  *bytes = parameters[index].bytes;
  return on_host::kSuccess;
}

Status cuLaunchKernel(const Function* function, unsigned grid_x, unsigned grid_y, unsigned grid_z,
                      unsigned block_x, unsigned block_y, unsigned block_z, unsigned shared_bytes,
                      void* handle, void** arguments, void** extra) {
  ++on_host::counts[on_host::kLaunches];
  const std::lock_guard<std::mutex> lock(on_host::calls);
  Stream* stream = Stream::find(handle);
  if (stream == nullptr) return on_host::kInvalidHandle;
  if (extra != nullptr) return on_host::kInvalidValue;
  return on_host::launch(*function, {grid_x, grid_y, grid_z}, {block_x, block_y, block_z},
                         shared_bytes, stream, arguments);
}

// What no driver has: how often this process has called for a synchronisation, an allocation, a free, a
// copy, a fill and a launch.
void on_host_counts(unsigned long long (*counts)[on_host::kCounted]) {
  for (int i = 0; i < on_host::kCounted; ++i) (*counts)[i] = on_host::counts[i];
}

}  // extern "C"
