// medcam: attention maps (Grad-CAM and kin) over DLPack tensors, on the CPU or a GPU.
//
// A call reads and writes the caller's tensors where they are: nothing is copied, and no tensor
// library is needed. The results are those of medcam's Rust crate, bit for bit, on any number of
// threads, and a batch gives what its samples give one by one.
//
//   medcam_workspace *workspace;
//   DLDevice cpu = {kDLCPU, 0};
//   if (medcam_workspace_create(cpu, &workspace) != MEDCAM_OK) fail(medcam_last_error());
//   medcam_status status =
//       medcam_cam(workspace, MEDCAM_GRAD_CAM, 1, &activation, &gradient, &map, NULL, NULL);
//   if (status != MEDCAM_OK) fail(medcam_last_error());
//   medcam_workspace_destroy(workspace);
//
// ALL CALLS
//
// Shapes are B samples of C channels of D x H x W voxels; 2D tensors have no D. Activations and
// gradients lie in memory as (B, C, [D,] H, W) or channels last, as (B, [D,] H, W, C); all other
// tensors in that order. There are no gaps. Where `strides` is NULL, values follow each other.
// Anything else is MEDCAM_INVALID, and so are an extent of 0 or above 2^31 - 1, data that is not
// aligned to its type, and an output that shares memory with another tensor of the call. Types are
// f32, f16, bf16 and u8 (bool counts as u8). A host tensor is kDLCPU or kDLCUDAHost, one of a GPU
// kDLCUDA or kDLCUDAManaged.
//
// What is checked is checked before anything is written. A call whose status is not MEDCAM_OK
// because of values (not finite, not in [0, 1]) or a failing device may have written its output,
// which is undefined then.
//
// What cannot be checked is undefined behaviour: pointers that are neither NULL nor point at what
// they say. `workspace` is NULL or of medcam_workspace_create and not destroyed. A tensor is NULL
// or points at a DLTensor; `shape` and `strides` are NULL or point at `ndim` numbers; `data` points
// at as many values as these say. Inputs need to be initialised, outputs need not. Nobody writes to
// an input, or reads or writes an output, until the work is done.
//
// Every function may be called from any thread. Those that take a workspace: see medcam_workspace.
//
// GPU
//
// Calls enqueue on `stream`, a cudaStream_t (or CUstream) of the workspace's device; NULL is the
// default stream. Tensors are to be ready there: on another stream, have `stream` wait for an event
// first. A call returns once it is enqueued, but for medcam_cam and medcam_guided_cam with `infos`,
// and medcam_evaluate, which wait. The stream may be destroyed when the workspace has been, or has
// been used with another one. That gives scratch memory back: make a workspace for each stream.
//
// Kernels are compiled by NVRTC at their first use, and kept on disk for the next process, in
// MEDCAM_CACHE_DIR or ~/.cache/medcam/kernels. The CUDA driver and NVRTC are loaded when the first
// GPU workspace is made; without them everything else works. MEDCAM_NVRTC names the folder of
// libnvrtc.so.
//
// Scratch memory comes from the driver, or from medcam_workspace_set_allocator.
//
// CPU
//
// `stream` is ignored, and a call is done when it returns. Large calls share their work among the
// threads of one pool, as many as there are cores, or RAYON_NUM_THREADS.
//
// VERSIONS
//
// Crate, library and header have one version. Functions and values are added in minor versions.
// Before 1.0 a minor version may also change what is there, from then on only a major one.
// MEDCAM_ABI_VERSION and the soname change whenever a program has to be compiled again:
// libmedcam.so.0.1 is that of 0.1.x, libmedcam.so.1 of all 1.x. Structs never grow within an ABI.


#ifndef MEDCAM_H_
#define MEDCAM_H_

// Made by cbindgen from capi/src; tests/header.rs says how to make it again.

#include <stddef.h>
#include <stdint.h>
#include "dlpack.h"

// The version of this header.
#define MEDCAM_VERSION_MAJOR 0
#define MEDCAM_VERSION_MINOR 1
#define MEDCAM_VERSION_PATCH 0

// What medcam_abi_version() of a library that fits returns.
#define MEDCAM_ABI_VERSION 1


// What became of a call. For every code but `MEDCAM_OK`, `medcam_last_error()` says why.
typedef enum {
  // It is done; on a GPU enqueued.
  MEDCAM_OK = 0,
  // An argument does not fit: a null pointer, a shape, strides, a type, a device or a value that
  // is not finite; or the host's memory does not hold what the call takes.
  MEDCAM_INVALID = 1,
  // CUDA is asked for, and the driver, NVRTC or the device is not there.
  MEDCAM_UNAVAILABLE = 2,
  // The device failed: it has no memory left, or a kernel did not compile or run.
  MEDCAM_DEVICE = 3,
  // Another thread is using the workspace.
  MEDCAM_BUSY = 4,
  // A bug of this library. Destroy the workspace; what was to be written is undefined.
  MEDCAM_INTERNAL = 5,
} medcam_status;

// How an activation `A` and its gradient `G` become a map `L`; `b` is the sample, `c` the channel,
// `n` the voxel.
typedef enum {
  // Grad-CAM: `L[b,n] = ReLU(sum_c w[b,c] A[b,c,n])` with `w[b,c] = mean_n G[b,c,n]`
  // (arXiv 1610.02391, equations 1 and 2).
  MEDCAM_GRAD_CAM = 0,
  // Grad-CAM++: the same with the weights of `medcam_alpha_weights` and `MEDCAM_PAPER`.
  MEDCAM_GRAD_CAM_PLUS_PLUS = 1,
  // Grad-CAM++ with the weights of `MEDCAM_M3D_CAM`.
  MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM = 2,
  // HiResCAM: `L[b,n] = ReLU(sum_c G[b,c,n] A[b,c,n])` (arXiv 2011.08891).
  MEDCAM_HIRES_CAM = 3,
  // LayerCAM: `L[b,n] = ReLU(sum_c ReLU(G[b,c,n]) A[b,c,n])` (doi 10.1109/TIP.2021.3089943).
  MEDCAM_LAYER_CAM = 4,
  // Grad-CAM++ with the weights of `MEDCAM_PAPER_EPSILON`.
  MEDCAM_GRAD_CAM_PLUS_PLUS_PAPER_EPSILON = 5,
  // Grad-CAM++ with the weights of `MEDCAM_M3D_CAM_EPSILON`.
  MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM_EPSILON = 6,
} medcam_method;

// D and epsilon in the denominator `2 G^2 + D + epsilon` of Grad-CAM++.
typedef enum {
  // `D = (sum_m A[b,c,m]) G[b,c,n]^3`: equation 19 of the paper (arXiv 1710.11063). Epsilon is 0.
  MEDCAM_PAPER = 0,
  // `D = sum_m A[b,c,m] G[b,c,m]^3`, one value for each channel: M3d-CAM's and MONAI's. Epsilon
  // is 0.
  MEDCAM_M3D_CAM = 1,
  // D of `MEDCAM_PAPER`, epsilon 1e-6: as pytorch-grad-cam 1.5.
  MEDCAM_PAPER_EPSILON = 2,
  // D of `MEDCAM_M3D_CAM`, epsilon 1e-7: as M3d-CAM 0.1.22 and MONAI 1.6.
  MEDCAM_M3D_CAM_EPSILON = 3,
} medcam_denominator;

// How a value between voxels is computed.
typedef enum {
  // Bilinear in 2D, trilinear in 3D; PyTorch's with align_corners=False.
  MEDCAM_LINEAR = 0,
  // The voxel that the position lies in; PyTorch's "nearest-exact".
  MEDCAM_NEAREST = 1,
} medcam_interpolation;

// What calls on one device keep from one to the next: the caller's stream and scratch memory.
//
// One thread at a time may use it: a call that finds another under way returns `MEDCAM_BUSY` and
// does nothing. Which thread is free. Several workspaces of one device work at the same time.
typedef struct medcam_workspace medcam_workspace;

// Returns the address of `bytes` bytes of memory of the workspace's device, aligned to 256 bytes,
// for work on `stream`; NULL if there are none. The device's context is current in the calling
// thread.
typedef void *(*medcam_allocate_function)(void *context, size_t bytes, void *stream);

// Takes memory back, which work enqueued on its stream may still use. The device's context is
// current in the calling thread.
typedef void (*medcam_free_function)(void *context, void *memory, size_t bytes);

// What is known of a map beside its values.
typedef struct {
  // The least value of the map on its grid, before normalisation.
  float minimum;
  // The greatest.
  float maximum;
  // 1 if Grad-CAM's channel weights are rounding noise, and so is the map: they are below 1e-4
  // of the gradient's magnitude, as in front of an instance norm. Otherwise 0, and with other
  // methods.
  int32_t weights_cancel;
} medcam_map_info;

// How much of a map is above a threshold, and how much of that is in the mask.
typedef struct {
  // The sum of the map's values.
  double sum;
  // The sum of its values in the mask.
  double sum_in_mask;
  // The sum of its values at or above the threshold.
  double sum_above;
  // The sum of those of them in the mask.
  double sum_above_in_mask;
  // How many voxels the map has.
  uint64_t voxels;
  // How many are in the mask.
  uint64_t in_mask;
  // How many are at or above the threshold.
  uint64_t above;
  // How many of these are in the mask.
  uint64_t above_in_mask;
  // The threshold: the one that was given, or Otsu's.
  float threshold;
} medcam_evaluation;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of this library, such as "0.1.0". It stays as long as the library is loaded.
const char *medcam_version(void);

// The ABI of this library. A program that was compiled with another `MEDCAM_ABI_VERSION` cannot
// use it.
//
// The dynamic linker holds this too, by the name of the library (its soname): call this where the
// library is loaded with `dlopen`.
uint32_t medcam_abi_version(void);

// Whether workspaces can be made for CUDA device `ordinal`: `MEDCAM_OK`, or `MEDCAM_UNAVAILABLE`
// and in `medcam_last_error()` what is missing: the driver, NVRTC (which compiles the kernels) or
// the device.
//
// Makes no context and takes no memory of the device.
medcam_status medcam_cuda_status(int32_t ordinal);

// Why the last call of this thread that failed did so, for people; empty if none did.
//
// The text stays until another call of this thread fails, or the thread ends. A call that succeeds
// leaves it as it is: look at the status first.
const char *medcam_last_error(void);

// Makes a workspace for a device, `kDLCPU` or `kDLCUDA`, and writes its address to `workspace`;
// NULL where that fails.
//
// On a GPU, `MEDCAM_UNAVAILABLE` says that CUDA or the device is not there. The device's primary
// context is used, the one that PyTorch and the CUDA runtime use.
//
// Required, or behaviour is undefined:
// `workspace` is NULL or points at room for a pointer.
medcam_status medcam_workspace_create(DLDevice device, medcam_workspace **workspace);

// Ends a workspace, and gives its memory back. NULL is ignored.
//
// What it enqueued goes on: the driver's memory is freed when the device is done, and an allocator
// of the caller gets its memory back at once.
//
// Required, or behaviour is undefined:
// `workspace` is NULL, or of `medcam_workspace_create` and not destroyed yet. No other thread is
// using it.
void medcam_workspace_destroy(medcam_workspace *workspace);

// From now on scratch memory of the GPU comes from `allocate` and goes to `free`, instead of the
// driver. Both NULL: from the driver again. What the workspace has goes back first.
//
// With it, calls neither allocate nor free memory of the device in any other way. (The driver
// takes memory for the context and for each kernel, when it is first used.) Blocks are kept from
// call to call, until the workspace ends or another stream is used: calls that repeat, in any
// order, end up allocating nothing.
//
// On the CPU neither is called: what a call needs there comes from malloc and is freed when it
// returns.
//
// Required, or behaviour is undefined:
// `workspace` is as for all calls. As long as it lives or until the next allocator, any thread
// that uses it may call both functions with `context`. What `allocate` returned belongs to the
// workspace until `free`. Until earlier work of its stream is done, freed memory goes to nothing
// but later work of that stream. The functions neither throw, nor jump out, nor call this
// workspace.
medcam_status medcam_workspace_set_allocator(medcam_workspace *workspace,
                                             void *context,
                                             medcam_allocate_function allocate,
                                             medcam_free_function free);

// Writes to `bytes` how much memory of the GPU the workspace holds at the moment; on the CPU it is
// 0.
//
// Blocks are kept and cut up, so it depends on the calls before. To learn what a program needs,
// run its calls once and ask. Its allocator may then hand out fixed memory.
//
// Required, or behaviour is undefined:
// `workspace` is as for all calls; `bytes` is NULL or points at room for a number.
medcam_status medcam_workspace_bytes(medcam_workspace *workspace, size_t *bytes);

// Makes the maps of a layer, from the raw gradient to the finished maps: the method's map,
// resampled linearly to the grid of `map`, and brought to [0, 1] if `normalized` is not 0.
//
// - `method`: a `medcam_method`;
// - `activation`: `(B, C, [D,] H, W)`, f32, f16 or bf16;
// - `gradient` of the score at the layer: the same shape and type and, but for Grad-CAM, order in
//   memory;
// - `map`: `(B, [D',] H', W')` or `(B, 1, [D',] H', W')`, f32, f16 or u8; written;
// - `infos`: one for each map, written; or NULL.
//
// Normalisation is `(v - min) / (max - min)`, sample by sample; a constant map becomes 0. A u8 map
// holds 255ths and has to be normalised.
//
// With `infos` the call waits for the maps, also on a GPU. Without, on a GPU it is only enqueued,
// and values that are not finite are not found: a map with such values is undefined then. On the
// CPU they are always `MEDCAM_INVALID`.
//
// Required, or behaviour is undefined:
// `infos` is NULL or points at room for B infos.
medcam_status medcam_cam(medcam_workspace *workspace,
                         int32_t method,
                         int normalized,
                         const DLTensor *activation,
                         const DLTensor *gradient,
                         DLTensor *map,
                         medcam_map_info *infos,
                         void *stream);

// Guided Grad-CAM (arXiv 1610.02391, section 3.2): the maps of `medcam_cam`, before normalisation,
// times guided maps `guided`, `(B, [D',] H', W')` f32 on the grid of `map`; then normalised if
// asked for.
//
// Everything else is as in `medcam_cam`; the infos are of the product.
//
// Required, or behaviour is undefined:
// `infos` is NULL or points at room for B infos.
medcam_status medcam_guided_cam(medcam_workspace *workspace,
                                int32_t method,
                                int normalized,
                                const DLTensor *activation,
                                const DLTensor *gradient,
                                const DLTensor *guided,
                                DLTensor *map,
                                medcam_map_info *infos,
                                void *stream);

// Grad-CAM's channel weights: `w[b,c] = mean_n G[b,c,n]`.
//
// `gradient` is `(B, C, [D,] H, W)`, f32, f16 or bf16; `weights` is `(B, C)`, f32, written.
medcam_status medcam_channel_weights(medcam_workspace *workspace,
                                     const DLTensor *gradient,
                                     DLTensor *weights,
                                     void *stream);

// Grad-CAM++'s channel weights: `w[b,c] = sum_n alpha[b,c,n] ReLU(G[b,c,n])` with
// `alpha = G^2 / (2 G^2 + D + epsilon)`; where G is 0, alpha is 0, and where only the denominator
// is, alpha is `G^2`.
//
// `denominator` is a `medcam_denominator` and says what D and epsilon are. `activation` and
// `gradient` are `(B, C, [D,] H, W)` of one type (f32, f16 or bf16) and order in memory; `weights`
// is `(B, C)`, f32, written.
medcam_status medcam_alpha_weights(medcam_workspace *workspace,
                                   int32_t denominator,
                                   const DLTensor *activation,
                                   const DLTensor *gradient,
                                   DLTensor *weights,
                                   void *stream);

// The weighted sum of the channels: `S[b,n] = sum_c w[b,c] A[b,c,n]`; `ReLU(S)` if `rectify` is
// not 0, as Grad-CAM has it, and S itself as Captum has it.
//
// `weights` is `(B, C)`, f32; `activation` is `(B, C, [D,] H, W)`, f32, f16 or bf16; `map` is of
// its grid, `(B, [D,] H, W)` or `(B, 1, [D,] H, W)`, f32, written. Sums that are not finite are no
// error here.
medcam_status medcam_project(medcam_workspace *workspace,
                             int rectify,
                             const DLTensor *weights,
                             const DLTensor *activation,
                             DLTensor *map,
                             void *stream);

// The maps of methods without channel weights: `method` is `MEDCAM_HIRES_CAM` or
// `MEDCAM_LAYER_CAM`.
//
// `activation` and `gradient` are `(B, C, [D,] H, W)` of one type (f32, f16 or bf16) and order in
// memory; `map` is of their grid, f32, written. Sums that are not finite are no error here.
medcam_status medcam_elementwise(medcam_workspace *workspace,
                                 int32_t method,
                                 const DLTensor *activation,
                                 const DLTensor *gradient,
                                 DLTensor *map,
                                 void *stream);

// The mean over the channels, `L[b,n] = mean_c T[b,c,n]`: the map of Guided Backpropagation, from
// the gradient at the input.
//
// `tensor` is `(B, C, [D,] H, W)`, f32, f16 or bf16; `map` is of its grid, f32, written.
medcam_status medcam_channel_mean(medcam_workspace *workspace,
                                  const DLTensor *tensor,
                                  DLTensor *map,
                                  void *stream);

// The backward of a guided ReLU: `output = gradient` where both `gradient` and `input` are above
// 0, and 0 elsewhere (arXiv 1412.6806, section 3.4).
//
// `gradient` is that at the ReLU's output, and `output` becomes that at its input. All three are
// of one shape (1 to 5 axes), one type (f32, f16 or bf16) and one order in memory, and share no
// memory. The ReLU's output can stand for `input`. A NaN in `gradient` stays where `input` is
// above 0.
medcam_status medcam_guided_activation(medcam_workspace *workspace,
                                       const DLTensor *input,
                                       const DLTensor *gradient,
                                       DLTensor *output,
                                       void *stream);

// Maps on another grid, that of `out`; and each brought to [0, 1] if `normalized` is not 0.
//
// Along each axis voxel d of the new grid lies at `(d + 1/2) from / to - 1/2` of the old one, with
// half-pixel centres. `interpolation` is a `medcam_interpolation`. `map` is `(B, [D,] H, W)`, f32;
// `out` is `(B, [D',] H', W')`, f32, f16 or u8, written; a channel axis of 1 may follow B in each.
// A u8 map holds 255ths and has to be normalised.
//
// On the CPU a map to be normalised whose values are not finite is `MEDCAM_INVALID`; on a GPU the
// values are not checked.
medcam_status medcam_resample(medcam_workspace *workspace,
                              int32_t interpolation,
                              int normalized,
                              const DLTensor *map,
                              DLTensor *out,
                              void *stream);

// Brings maps `(B, [D,] H, W)`, f32, to [0, 1], in place: `(v - min) / (max - min)`, sample by
// sample. A constant map becomes 0.
//
// On the CPU a map whose values are not finite is `MEDCAM_INVALID`, and as before; on a GPU the
// values are not checked.
medcam_status medcam_normalize(medcam_workspace *workspace, DLTensor *map, void *stream);

// Guided Grad-CAM from its two maps: `P[b,n] = resample(map)[b,n] guided[b,n]`, linear as in
// `medcam_resample`; and each product brought to [0, 1] if `normalized` is not 0.
//
// `map` is `(B, [D,] H, W)` and `guided` `(B, [D',] H', W')`, both f32; `out` is of the grid of
// `guided`, f32, f16 or u8, written. A u8 map holds 255ths and has to be normalised.
//
// On the CPU a product that is not finite is `MEDCAM_INVALID`; on a GPU the values are not
// checked.
medcam_status medcam_guided_product(medcam_workspace *workspace,
                                    int normalized,
                                    const DLTensor *map,
                                    const DLTensor *guided,
                                    DLTensor *out,
                                    void *stream);

// What metrics of a map against a mask are made of: counts and sums above a threshold.
//
// `map` is `(B, [D,] H, W)`, f32 in [0, 1]; `mask` is of the same shape, u8 (or bool), 0 outside
// and anything else inside; `evaluations` has room for B. `threshold` points at a number in [0,
// 1], or is NULL for Otsu's threshold of each map (of 256 bins of [0, 1], as scikit-image's
// `threshold_otsu` of a normalised map).
//
// Intersection over union, for one, is `above_in_mask / (above + in_mask - above_in_mask)`.
//
// Waits for the result, also on a GPU. A value that is not in [0, 1] is `MEDCAM_INVALID`.
//
// Required, or behaviour is undefined:
// `threshold` is NULL or points at a number, `evaluations` at room for B.
medcam_status medcam_evaluate(medcam_workspace *workspace,
                              const DLTensor *map,
                              const DLTensor *mask,
                              const float *threshold,
                              medcam_evaluation *evaluations,
                              void *stream);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* MEDCAM_H_ */
