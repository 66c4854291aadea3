/* Grad-CAM of one layer of a 2D network: a map of 7 x 7 from 512 channels, brought to 224 x 224.
 *
 *   cc -std=c99 capi/examples/cam.c $(pkg-config --cflags --libs medcam) -o cam && ./cam
 */
#include <stdio.h>
#include <stdlib.h>

#include "medcam.h"

enum { CHANNELS = 512, EDGE = 7, IMAGE = 224 };

/* A tensor of the host whose values follow each other. */
static DLTensor host_tensor(void* data, DLDataType type, int32_t ndim, int64_t* shape) {
  DLTensor tensor = {0};
  tensor.data = data;
  tensor.device.device_type = kDLCPU;
  tensor.ndim = ndim;
  tensor.dtype = type;
  tensor.shape = shape;
  return tensor;
}

static void check(medcam_status status) {
  if (status == MEDCAM_OK) return;
  fprintf(stderr, "%s\n", medcam_last_error());
  exit(1);
}

int main(void) {
  enum { VOXELS = EDGE * EDGE };
  static float a[CHANNELS * VOXELS], g[CHANNELS * VOXELS];
  static uint8_t pixels[IMAGE * IMAGE];

  /* What a forward and a backward pass leave at the layer; here the first channel is bright in its
     centre, and the score grows with it. */
  a[VOXELS / 2] = 1;
  for (int i = 0; i < VOXELS; i++) g[i] = 0.5f;

  const DLDataType f32 = {kDLFloat, 32, 1}, u8 = {kDLUInt, 8, 1};
  int64_t layer[] = {1, CHANNELS, EDGE, EDGE}, image[] = {1, IMAGE, IMAGE};
  DLTensor activation = host_tensor(a, f32, 4, layer), gradient = host_tensor(g, f32, 4, layer);
  DLTensor map = host_tensor(pixels, u8, 3, image);

  medcam_workspace* workspace;
  medcam_map_info info;
  DLDevice cpu = {kDLCPU, 0};
  check(medcam_workspace_create(cpu, &workspace));
  check(medcam_cam(workspace, MEDCAM_GRAD_CAM, 1, &activation, &gradient, &map, &info, NULL));
  medcam_workspace_destroy(workspace);

  printf("medcam %s: %d in the centre, %d in the corner; before normalisation %g to %g\n",
         medcam_version(), pixels[IMAGE * (IMAGE / 2) + IMAGE / 2], pixels[0], info.minimum,
         info.maximum);
  return 0;
}
