// Modules: what NVRTC made of a program, and the library that g++ made of the same.
#pragma once

#include <map>
#include <string>

#include "driver/device.h"
#include "driver/image.h"
#include "driver/status.h"
#include "driver/stream.h"
#include "runtime/kernel_side.h"

namespace on_host {

struct Function {
  std::string name;
  KernelImage image;
  const KernelModule* library;
  const KernelEntry* entry;
  size_t max_dynamic_shared = kSharedBytes;

  // By its registers and its launch bounds.
  size_t max_threads() const;
};

struct Module {
  std::map<std::string, Function> functions;
};

// Loads the libraries that MEDCAM_ON_HOST_KERNELS lists, separated by colons.
void load_libraries();

// The module of a CUBIN, with the library that has the same kernels with the same parameters.
Status load_module(const void* image, Module** module);

// Checks a launch against the limits, copies the arguments, and has it wait in the stream.
Status launch(const Function& function, dim3 grid, dim3 block, size_t dynamic_shared_bytes,
              Stream* stream, void** arguments);

}  // namespace on_host
