// What the shim asks of the machine: CUDA devices and streams, and the C allocator.
#include <c10/core/impl/VirtualGuardImpl.h>
#include <dlfcn.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <torch/cuda.h>

#include <limits>

#include "boundary.h"

extern "C" {

int64_t mc_cuda_devices(void) {
  try {
    // libtorch_cuda takes a second to load: only where there is a driver to use it with.
    void* driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL);
    if (!driver) return 0;
    dlclose(driver);
    // Linked as needed, the program does not depend on libtorch_cuda: it must be asked for.
    if (!dlopen("libtorch_cuda.so", RTLD_NOW | RTLD_GLOBAL)) return 0;
    return static_cast<int64_t>(torch::cuda::device_count());
  } catch (...) {
    return 0;
  }
}

bool mc_cuda_stream(int64_t index, void** stream, char** error) {
  return medcam::guarded(error, [&] {
    // Through the registry of devices: no CUDA header is needed, nor libtorch_cuda at link time.
    const c10::impl::VirtualGuardImpl guard(c10::DeviceType::CUDA);
    const c10::Device device(c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(index));
    *stream = guard.getStream(device).native_handle();
  });
}

bool mc_pinned(const mc_tensor* like, mc_tensor** empty, char** error) {
  return medcam::guarded(error, [&] {
    const at::Tensor& tensor = medcam::unwrap(like);
    const auto options = tensor.options().device(at::kCPU).pinned_memory(true);
    *empty = medcam::wrap(at::empty(tensor.sizes(), options));
  });
}

bool mc_keep_freed_memory(void) {
#ifdef __GLIBC__
  // By default blocks above 32 MiB at most come from the system and go back to it each time, and
  // every page is cleared anew.
  // One heap for all threads: what one of them freed, any of them can have.
  return mallopt(M_ARENA_MAX, 1) == 1 &&
         mallopt(M_MMAP_THRESHOLD, std::numeric_limits<int>::max()) == 1 &&
         mallopt(M_TRIM_THRESHOLD, std::numeric_limits<int>::max()) == 1;
#else
  return false;
#endif
}

}  // extern "C"
