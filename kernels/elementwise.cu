// HiResCAM and LayerCAM: map[b,n] = ReLU(sum_c G[b,c,n] * A[b,c,n]), for LayerCAM with ReLU(G) in
// place of G, and the extremes of each sample.
//
// Reads A and G once, writes 4 bytes for each voxel. Where the channels of a tile are split, 4 bytes
// for each part of them are also written and read.
//
//   elementwise_rows          contiguous: a block for each tile of voxels and, where tiles are too few to
//                         fill a device, for each part of the channels; a thread for 16 bytes (or
//                         one voxel, where N is no multiple of them). Threads 0 to `threads` - 1 of
//                         the last block of a tile hold its sums
//   elementwise_columns       channels last: `lanes` threads for each voxel, several voxels at a time; the
//                         first lane holds the sum
//   elementwise_few_columns   channels last, few voxels: several packs of one voxel at a time
//
// The last block of a sample reduces its extremes, 16 bytes for each tile; thread 0 writes them.
#include "lib/voxel_sums.cuh"

namespace {

struct Products {
  static constexpr int kTensors = 2;
  const SCALAR* tensors[2];
  const float* weights;
  float weight;
  bool rectify;
  bool positive_gradients;

  __device__ __forceinline__ float term(const float (&values)[2], float) const {
    const float gradient = values[1];
    return (positive_gradients ? relu(gradient) : gradient) * values[0];
  }
};

}  // namespace

VOXEL_SUMS_ENTRIES(elementwise,
                   (Products{{activation, gradient}, nullptr, 0.0f, true, positive_gradients != 0}),
                   const SCALAR* activation, const SCALAR* gradient, int positive_gradients)
