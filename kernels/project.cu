// The weighted sum of the channels: map[b,n] = sum_c w[b,c] * A[b,c,n], rectified or not, and the
// extremes of each sample. Without weights each is 1/C: the mean of the channels.
//
// Reads A once, writes 4 bytes for each voxel. Where the channels of a tile are split, 4 bytes for
// each part of them are also written and read.
//
//   project_rows          contiguous: a block for each tile of voxels and, where tiles are too few to
//                         fill a device, for each part of the channels; a thread for 16 bytes (or
//                         one voxel, where N is no multiple of them). Threads 0 to `threads` - 1 of
//                         the last block of a tile hold its sums
//   project_columns       channels last: `lanes` threads for each voxel, several voxels at a time; the
//                         first lane holds the sum
//   project_few_columns   channels last, few voxels: several packs of one voxel at a time
//
// The last block of a sample reduces its extremes, 16 bytes for each tile; thread 0 writes them.
#include "lib/voxel_sums.cuh"

namespace {

struct Project {
  static constexpr int kTensors = 1;
  const SCALAR* tensors[1];
  const float* weights;
  float weight;
  bool rectify;

  __device__ __forceinline__ float term(const float (&values)[1], float of_channel) const {
    return of_channel * values[0];
  }
};

}  // namespace

VOXEL_SUMS_ENTRIES(project, (Project{{activation}, weights, weight, rectify != 0}),
                   const SCALAR* activation, const float* weights, float weight, int rectify)
