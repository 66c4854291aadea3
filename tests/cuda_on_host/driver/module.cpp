#include "driver/module.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <memory>
#include <sstream>
#include <utility>
#include <vector>

#include "driver/memory.h"
#include "runtime/grid.h"

namespace on_host {
namespace {

std::vector<const KernelModule*> libraries;

const KernelEntry* find_entry(const KernelModule& library, const std::string& name) {
  const KernelEntry* end = library.entries + library.entry_count;
  const KernelEntry* found =
      std::find_if(library.entries, end, [&](const auto& entry) { return name == entry.name; });
  return found == end ? nullptr : found;
}

bool has_same_kernels(const KernelModule& library,
                      const std::map<std::string, KernelImage>& kernels) {
  return library.entry_count == kernels.size() &&
         std::all_of(kernels.begin(), kernels.end(), [&](const auto& kernel) {
           return find_entry(library, kernel.first) != nullptr;
         });
}

std::string names(const std::map<std::string, KernelImage>& kernels) {
  std::string all;
  for (const auto& kernel : kernels) all += " " + kernel.first;
  return all;
}

Status check_parameters(const Function& function) {
  const auto& parameters = function.image.parameters;
  const KernelEntry& entry = *function.entry;
  const bool same =
      std::equal(parameters.begin(), parameters.end(), entry.argument_bytes,
                 entry.argument_bytes + entry.argument_count,
                 [](const Parameter& parameter, size_t bytes) { return parameter.bytes == bytes; });
  if (same) return kSuccess;
  return report(kInvalidImage, "%s: NVRTC and g++ see different parameters", function.name.c_str());
}

Status run_now(const Function& function, dim3 grid, dim3 block, size_t dynamic_shared_bytes,
               const std::vector<std::vector<unsigned char>>& values) {
  std::vector<void*> arguments;
  for (const auto& value : values) {
    arguments.push_back(const_cast<unsigned char*>(value.data()));
  }
  std::string problem =
      run({function.library, function.entry, grid, block, dynamic_shared_bytes, arguments.data()});
  if (problem.empty()) problem = check_allocations();
  if (problem.empty()) return kSuccess;
  return report(kLaunchFailed, "kernel %s: %s", function.name.c_str(), problem.c_str());
}

}  // namespace

size_t Function::max_threads() const {
  // Registers are given out by 8 for each thread of a warp.
  const size_t of_warp = std::max<size_t>((image.registers + 7) / 8 * 8, 1) * kWarpSize;
  const size_t by_registers = kRegisters / of_warp * kWarpSize;
  const size_t bound = image.max_threads == 0 ? kMaxThreads : image.max_threads;
  return std::min({by_registers, bound, size_t{kMaxThreads}});
}

void load_libraries() {
  const char* listed = std::getenv("MEDCAM_ON_HOST_KERNELS");
  std::istringstream paths(listed == nullptr ? "" : listed);
  for (std::string path; std::getline(paths, path, ':');) {
    // Local: all libraries have names in common.
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    void* module = library == nullptr ? nullptr : dlsym(library, "on_host_module");
    if (module == nullptr) {
      report(kNotFound, "%s", dlerror());
      std::abort();
    }
    libraries.push_back(static_cast<const KernelModule*>(module));
  }
}

Status load_module(const void* image, Module** module) {
  const auto kernels = read_image(image);
  if (kernels.empty()) return report(kInvalidImage, "an image without kernels");
  std::vector<const KernelModule*> found;
  std::copy_if(libraries.begin(), libraries.end(), std::back_inserter(found),
               [&](const KernelModule* library) { return has_same_kernels(*library, kernels); });
  if (found.size() != 1) {
    return report(kInvalidImage, "%zu libraries for the host have exactly the kernels%s",
                  found.size(), names(kernels).c_str());
  }
  auto loaded = std::make_unique<Module>();
  for (const auto& [name, kernel] : kernels) {
    const Function function = {name, kernel, found[0], find_entry(*found[0], name)};
    if (const Status status = check_parameters(function); status != kSuccess) return status;
    loaded->functions.emplace(name, function);
  }
  *module = loaded.release();
  return kSuccess;
}

Status launch(const Function& function, dim3 grid, dim3 block, size_t dynamic_shared_bytes,
              Stream* stream, void** arguments) {
  const size_t threads = size_t{block.x} * block.y * block.z;
  if (threads == 0 || threads > kMaxThreads || grid.x == 0 || grid.y == 0 || grid.z == 0 ||
      grid.x > kMaxGrid[0] || grid.y > kMaxGrid[1] || grid.z > kMaxGrid[2]) {
    return report(kInvalidValue, "%s: a grid of (%u,%u,%u) blocks of (%u,%u,%u) threads",
                  function.name.c_str(), grid.x, grid.y, grid.z, block.x, block.y, block.z);
  }
  if (threads > function.max_threads()) {
    return report(kLaunchOutOfResources, "%s: %zu threads of %zu at most", function.name.c_str(),
                  threads, function.max_threads());
  }
  const size_t shared_bytes = function.image.shared_bytes + dynamic_shared_bytes;
  if (dynamic_shared_bytes > function.max_dynamic_shared ||
      shared_bytes > std::max(kSharedBytes, function.max_dynamic_shared)) {
    return report(kInvalidValue, "%s: %zu bytes of shared memory, %zu of them dynamic",
                  function.name.c_str(), shared_bytes, dynamic_shared_bytes);
  }
  std::vector<std::vector<unsigned char>> values;
  for (size_t i = 0; i < function.entry->argument_count; ++i) {
    const auto* value = static_cast<const unsigned char*>(arguments[i]);
    values.emplace_back(value, value + function.entry->argument_bytes[i]);
  }
  stream->add([=, &function, values = std::move(values)] {
    return run_now(function, grid, block, dynamic_shared_bytes, values);
  });
  return kSuccess;
}

}  // namespace on_host
