// Grad-CAM in a program that runs its network with libtorch, on its current stream and from its
// memory pool.
//
//   c++ -std=c++17 capi/examples/cam_torch.cpp $(pkg-config --cflags --libs medcam)
//     -I$LIBTORCH/include -I$LIBTORCH/include/torch/csrc/api/include -L$LIBTORCH/lib
//     -Wl,-rpath,$LIBTORCH/lib -ltorch -ltorch_cpu -lc10 -o cam_torch && ./cam_torch
//
// For CUDA add -DWITH_CUDA, the headers of the CUDA toolkit, -Wl,--no-as-needed -ltorch_cuda and
// -lc10_cuda.
#include <torch/torch.h>
#ifdef WITH_CUDA
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAStream.h>
#endif

#include <array>
#include <iostream>
#include <memory>
#include <stdexcept>

#include "medcam.h"

namespace {

void check(medcam_status status) {
  if (status != MEDCAM_OK) throw std::runtime_error(medcam_last_error());
}

// A torch tensor as medcam takes it: its own memory, shape and strides. The tensor has to outlive
// it.
DLTensor view(const torch::Tensor& tensor) {
  DLDataTypeCode code = kDLFloat;
  if (tensor.scalar_type() == torch::kBFloat16) code = kDLBfloat;
  if (tensor.scalar_type() == torch::kUInt8) code = kDLUInt;
  DLTensor made{};
  made.data = tensor.data_ptr();
  made.device.device_type = tensor.is_cuda() ? kDLCUDA : kDLCPU;
  made.device.device_id = tensor.is_cuda() ? tensor.get_device() : 0;
  made.ndim = static_cast<int32_t>(tensor.dim());
  made.dtype = {static_cast<uint8_t>(code), static_cast<uint8_t>(8 * tensor.element_size()), 1};
  made.shape = const_cast<int64_t*>(tensor.sizes().data());
  made.strides = const_cast<int64_t*>(tensor.strides().data());
  return made;
}

// The stream that torch works on, for tensors of this device.
void* current_stream(const torch::Tensor& tensor) {
#ifdef WITH_CUDA
  if (tensor.is_cuda()) return c10::cuda::getCurrentCUDAStream(tensor.get_device()).stream();
#endif
  (void)tensor;
  return nullptr;
}

using Workspace = std::unique_ptr<medcam_workspace, decltype(&medcam_workspace_destroy)>;

// A workspace for the device of a tensor, with scratch memory from torch's pool.
Workspace workspace_for(const torch::Tensor& tensor) {
  medcam_workspace* made = nullptr;
  check(medcam_workspace_create(view(tensor).device, &made));
  Workspace workspace(made, medcam_workspace_destroy);
#ifdef WITH_CUDA
  // Exceptions of torch's (no memory left) must not reach medcam.
  auto allocate = [](void*, size_t bytes, void* stream) -> void* {
    try {
      return c10::cuda::CUDACachingAllocator::raw_alloc_with_stream(
          bytes, static_cast<cudaStream_t>(stream));
    } catch (...) {
      return nullptr;
    }
  };
  auto release = [](void*, void* memory, size_t) {
    try {
      c10::cuda::CUDACachingAllocator::raw_delete(memory);
    } catch (...) {
    }
  };
  if (tensor.is_cuda()) check(medcam_workspace_set_allocator(made, nullptr, allocate, release));
#endif
  return workspace;
}

}  // namespace

int main() {
  torch::manual_seed(0);
  torch::Device device = torch::kCPU;
#ifdef WITH_CUDA
  if (torch::cuda::is_available()) device = torch::kCUDA;
#endif

  // A network in two parts: what comes before the explained layer, and what comes after.
  torch::nn::Sequential features(torch::nn::Conv3d(torch::nn::Conv3dOptions(1, 16, 3).stride(2)),
                                 torch::nn::ReLU());
  torch::nn::Linear head(16, 2);
  features->to(device);
  head->to(device);
  auto image = torch::rand({2, 1, 33, 33, 33}, device);
  auto activation = features->forward(image).detach().requires_grad_();
  auto scores = head->forward(activation.mean({2, 3, 4}));
  auto gradient = torch::autograd::grad({scores.select(1, 1).sum()}, {activation})[0].contiguous();
  auto map = torch::empty({2, 33, 33, 33}, activation.options().requires_grad(false));

  auto workspace = workspace_for(activation);
  auto a = view(activation), g = view(gradient), out = view(map);
  std::array<medcam_map_info, 2> infos{};
  check(medcam_cam(workspace.get(), MEDCAM_GRAD_CAM, 1, &a, &g, &out, infos.data(),
                   current_stream(map)));

  // The same of torch's operators, to compare.
  auto weights = gradient.mean({2, 3, 4}, /*keepdim=*/true);
  auto expected = torch::relu((weights * activation.detach()).sum(1, /*keepdim=*/true));
  namespace F = torch::nn::functional;
  auto options =
      F::InterpolateFuncOptions().size(std::vector<int64_t>{33, 33, 33}).mode(torch::kTrilinear);
  expected = F::interpolate(expected, options.align_corners(false)).squeeze(1);
  auto low = expected.amin({1, 2, 3}, /*keepdim=*/true),
       high = expected.amax({1, 2, 3}, /*keepdim=*/true);
  expected = (expected - low) / (high - low);

  auto difference = (map - expected).abs().max().item<float>();
  std::cout << "medcam " << medcam_version() << " on " << device << ": maps of " << map.sizes()
            << ", the first from " << infos[0].minimum << " to " << infos[0].maximum << "; at most "
            << difference << " from torch's operators\n";
  return difference < 1e-4f ? 0 : 1;
}
