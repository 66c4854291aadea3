// What a CUBIN says of its kernels.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <vector>

namespace on_host {

struct Parameter {
  size_t offset;
  size_t bytes;
};

struct KernelImage {
  std::vector<Parameter> parameters;
  size_t registers = 0;     // of a thread
  size_t shared_bytes = 0;  // static
  size_t max_threads = 0;   // of a block, by __launch_bounds__; 0 without
};

// The kernels of a CUBIN by name; none if it is not one.
std::map<std::string, KernelImage> read_image(const void* image);

}  // namespace on_host
