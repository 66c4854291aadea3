/* Whatever does not fit is a status and a message, never a crash. */
#include <stdint.h>

#include "check.h"

/* Whether a call is refused with a message that has these words. */
#define REFUSED(status, words, call)                                                        \
  do {                                                                                      \
    if ((call) != (status)) FAIL("%s: not refused as it should be", #call);                 \
    if (strstr(medcam_last_error(), words) == NULL) FAIL("%s: no \"%s\" in", #call, words); \
  } while (0)
#define INVALID(words, call) REFUSED(MEDCAM_INVALID, words, call)

static medcam_workspace* workspace;
static float a[16], g[16], out[16], w[4];
static uint8_t bytes[16];

static medcam_status cam(const DLTensor* activation, const DLTensor* gradient, DLTensor* map) {
  return medcam_cam(workspace, MEDCAM_GRAD_CAM, 1, activation, gradient, map, NULL, NULL);
}

static void null_pointers(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor weights = F32(w, 1, 2), mask = U8(bytes, 1, 2, 2);
  medcam_evaluation evaluation;
  size_t size;
  INVALID("activation", cam(NULL, &gradient, &map));
  INVALID("gradient", cam(&activation, NULL, &map));
  INVALID("map", cam(&activation, &gradient, NULL));
  INVALID("workspace", medcam_cam(NULL, 0, 1, &activation, &gradient, &map, NULL, NULL));
  INVALID("guided",
          medcam_guided_cam(workspace, 0, 1, &activation, &gradient, NULL, &map, NULL, NULL));
  INVALID("gradient", medcam_channel_weights(workspace, NULL, &weights, NULL));
  INVALID("weights", medcam_channel_weights(workspace, &gradient, NULL, NULL));
  INVALID("activation", medcam_alpha_weights(workspace, 0, NULL, &gradient, &weights, NULL));
  INVALID("gradient", medcam_alpha_weights(workspace, 0, &activation, NULL, &weights, NULL));
  INVALID("weights", medcam_alpha_weights(workspace, 0, &activation, &gradient, NULL, NULL));
  INVALID("weights", medcam_project(workspace, 1, NULL, &activation, &map, NULL));
  INVALID("activation", medcam_project(workspace, 1, &weights, NULL, &map, NULL));
  INVALID("map", medcam_project(workspace, 1, &weights, &activation, NULL, NULL));
  INVALID("activation",
          medcam_elementwise(workspace, MEDCAM_LAYER_CAM, NULL, &gradient, &map, NULL));
  INVALID("gradient",
          medcam_elementwise(workspace, MEDCAM_LAYER_CAM, &activation, NULL, &map, NULL));
  INVALID("map",
          medcam_elementwise(workspace, MEDCAM_LAYER_CAM, &activation, &gradient, NULL, NULL));
  INVALID("tensor", medcam_channel_mean(workspace, NULL, &map, NULL));
  INVALID("map", medcam_channel_mean(workspace, &activation, NULL, NULL));
  INVALID("map", medcam_resample(workspace, MEDCAM_LINEAR, 0, NULL, &map, NULL));
  INVALID("out", medcam_resample(workspace, MEDCAM_LINEAR, 0, &map, NULL, NULL));
  INVALID("map", medcam_normalize(workspace, NULL, NULL));
  INVALID("map", medcam_guided_product(workspace, 1, NULL, &map, &map, NULL));
  INVALID("guided", medcam_guided_product(workspace, 1, &map, NULL, &map, NULL));
  INVALID("out", medcam_guided_product(workspace, 1, &map, &map, NULL, NULL));
  INVALID("input", medcam_guided_activation(workspace, NULL, &gradient, &map, NULL));
  INVALID("gradient", medcam_guided_activation(workspace, &activation, NULL, &map, NULL));
  INVALID("output", medcam_guided_activation(workspace, &activation, &gradient, NULL, NULL));
  INVALID("map", medcam_evaluate(workspace, NULL, &mask, NULL, &evaluation, NULL));
  INVALID("mask", medcam_evaluate(workspace, &map, NULL, NULL, &evaluation, NULL));
  INVALID("evaluations", medcam_evaluate(workspace, &map, &mask, NULL, NULL, NULL));
  INVALID("workspace", medcam_workspace_create(activation.device, NULL));
  INVALID("bytes", medcam_workspace_bytes(workspace, NULL));
  INVALID("workspace", medcam_workspace_bytes(NULL, &size));
  INVALID("workspace", medcam_workspace_set_allocator(NULL, NULL, NULL, NULL));

  DLTensor no_data = activation, no_shape = activation;
  no_data.data = NULL;
  INVALID("data is a null pointer", cam(&no_data, &gradient, &map));
  no_shape.shape = NULL;
  INVALID("shape is a null pointer", cam(&no_shape, &gradient, &map));
}

static void shapes(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor wrong = activation;
  wrong.shape = (int64_t[]){1, 2, 0, 2};
  INVALID("no values", cam(&wrong, &gradient, &map));
  wrong.shape = (int64_t[]){1, 2, -2, 2};
  INVALID("negative", cam(&wrong, &gradient, &map));
  wrong.shape = (int64_t[]){INT64_MIN, 2, 2, 2};
  INVALID("negative", cam(&wrong, &gradient, &map));
  wrong.shape = (int64_t[]){INT64_MAX, INT64_MAX, 2, 2};
  INVALID("too many", cam(&wrong, &gradient, &map));
  wrong.shape = (int64_t[]){1, 1, (int64_t)1 << 31, 2};
  INVALID("limit", cam(&wrong, &wrong, &map));
  wrong.shape = (int64_t[]){1, 2, 2, 1};
  INVALID("shape", cam(&activation, &wrong, &map));
  wrong = activation;
  const int32_t counts[] = {0, -1, 6, INT32_MAX, INT32_MIN};
  for (int i = 0; i < 5; i++) {
    wrong.ndim = counts[i];
    INVALID("axes", cam(&wrong, &gradient, &map));
  }
  wrong.ndim = 3;
  INVALID("(B, C, H, W)", cam(&wrong, &gradient, &map));
  DLTensor other = F32(out, 2, 2, 2);
  INVALID("2 maps for a batch of 1", cam(&activation, &gradient, &other));
  other = F32(out, 1, 2, 2, 2);
  INVALID("a depth", cam(&activation, &gradient, &other));
  other = F32(out, 1, 3, 3);
  INVALID("grid", medcam_channel_mean(workspace, &activation, &other, NULL));
  other = F32(w, 2, 1);
  INVALID("(1, 2)", medcam_channel_weights(workspace, &gradient, &other, NULL));
}

static void strides(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor wrong = activation;
  int64_t bad[][4] = {
      {16, 8, 4, 2},                                /* gaps */
      {8, 4, 1, 2},                                 /* transposed */
      {8, 4, -2, 1},                                /* backwards */
      {8, 4, 0, 1},                                 /* one row for all */
      {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}, /* overflow */
      {INT64_MIN, INT64_MIN, INT64_MIN, INT64_MIN},
      {INT64_MAX / 4 + 1, INT64_MAX / 4 + 1, 2, 1},
  };
  for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
    wrong.strides = bad[i];
    INVALID("without gaps", cam(&wrong, &gradient, &map));
    INVALID("activation", medcam_channel_weights(workspace, &wrong, &map, NULL) == MEDCAM_INVALID
                              ? cam(&wrong, &wrong, &map)
                              : MEDCAM_OK);
  }
  /* Channels last is an order of activations, and none of maps. */
  int64_t last[] = {4, 1, 2};
  DLTensor turned = F32(out, 1, 2, 2);
  turned.strides = last;
  INVALID("in order", cam(&activation, &gradient, &turned));
  INVALID("in order", medcam_normalize(workspace, &turned, NULL));
  /* But for Grad-CAM, activation and gradient are of one order. */
  int64_t channels_last[] = {8, 1, 4, 2};
  DLTensor view = activation;
  view.strides = channels_last;
  INVALID("layout", medcam_elementwise(workspace, MEDCAM_LAYER_CAM, &view, &gradient, &map, NULL));
  INVALID("memory", medcam_guided_activation(workspace, &view, &gradient, &(DLTensor){0}, NULL) ==
                            MEDCAM_INVALID
                        ? medcam_guided_activation(workspace, &gradient, &view,
                                                   &(DLTensor){.data = out,
                                                               .device = {kDLCPU, 0},
                                                               .ndim = 4,
                                                               .dtype = {kDLFloat, 32, 1},
                                                               .shape = activation.shape},
                                                   NULL)
                        : MEDCAM_OK);
}

static void memory(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor wrong = activation;
  wrong.byte_offset = 2;
  INVALID("aligned", cam(&wrong, &gradient, &map));
  wrong.byte_offset = UINT64_MAX;
  INVALID("beyond", cam(&wrong, &gradient, &map));
  wrong.byte_offset = UINT64_MAX - (uint64_t)(uintptr_t)a - 7;
  INVALID("beyond", cam(&wrong, &gradient, &map));
  wrong = activation;
  wrong.data = (char*)a + 1;
  INVALID("aligned", cam(&wrong, &gradient, &map));
  wrong = activation;
  wrong.shape = (int64_t*)(void*)((char*)activation.shape + 4);
  INVALID("aligned", cam(&wrong, &gradient, &map));
  INVALID("aligned", cam((DLTensor*)(void*)((char*)&activation + 1), &gradient, &map));
  INVALID("aligned", medcam_workspace_bytes(workspace, (size_t*)(void*)((char*)a + 1)));

  DLTensor same = F32(a, 1, 2, 2), tail = F32(a + 7, 1, 2, 2);
  INVALID("shares memory with activation", cam(&activation, &gradient, &same));
  INVALID("shares memory with activation", cam(&activation, &gradient, &tail));
  INVALID("shares memory with input",
          medcam_guided_activation(workspace, &activation, &gradient, &activation, NULL));
  INVALID("shares memory with gradient",
          medcam_guided_activation(workspace, &activation, &gradient, &gradient, NULL));
  INVALID("shares memory with map", medcam_resample(workspace, 0, 0, &map, &map, NULL));
}

static void types_and_choices(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor wrong = activation, weights = F32(w, 1, 2), mask = U8(bytes, 1, 2, 2);
  wrong.dtype.bits = 64;
  INVALID("64 bits", cam(&wrong, &gradient, &map));
  wrong = activation;
  wrong.dtype.lanes = 4;
  INVALID("4 lanes", cam(&wrong, &gradient, &map));
  wrong = activation;
  wrong.dtype.code = 200;
  INVALID("code 200", cam(&wrong, &gradient, &map));
  DLTensor u8 = U8(bytes, 1, 2, 2, 2), half = F16(a, 1, 2, 2, 2), bf16 = BF16(out, 1, 2, 2);
  INVALID("u8", cam(&u8, &u8, &map));
  INVALID("gradient", cam(&activation, &half, &map));
  INVALID("bf16", cam(&activation, &gradient, &bf16));
  INVALID("u8", medcam_cam(workspace, 0, 0, &activation, &gradient, &mask, NULL, NULL));
  INVALID("mask",
          medcam_evaluate(workspace, &map, &activation, NULL, &(medcam_evaluation){0}, NULL));
  INVALID("U8", medcam_normalize(workspace, &mask, NULL));

  const int32_t unknown[] = {-1, 7, 99, INT32_MAX, INT32_MIN};
  for (int i = 0; i < 5; i++) {
    int32_t n = unknown[i];
    INVALID("method", medcam_cam(workspace, n, 1, &activation, &gradient, &map, NULL, NULL));
    INVALID("method", medcam_elementwise(workspace, n, &activation, &gradient, &map, NULL));
    INVALID("denominator",
            medcam_alpha_weights(workspace, n, &activation, &gradient, &weights, NULL));
    INVALID("interpolation", medcam_resample(workspace, n, 0, &map, &map, NULL));
  }
  INVALID("channel weights",
          medcam_elementwise(workspace, MEDCAM_GRAD_CAM, &activation, &gradient, &map, NULL));
  const float thresholds[] = {-0.1f, 1.1f, NAN, INFINITY};
  for (int i = 0; i < 4; i++) {
    medcam_evaluation found;
    INVALID("threshold", medcam_evaluate(workspace, &map, &mask, &thresholds[i], &found, NULL));
  }
}

static void devices(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor wrong = activation;
  wrong.device.device_type = kDLCUDA;
  INVALID("copy it over", cam(&wrong, &gradient, &map));
  wrong.device.device_type = kDLMetal;
  INVALID("type 8", cam(&wrong, &gradient, &map));
  wrong.device.device_type = (DLDeviceType)12345;
  INVALID("type 12345", cam(&wrong, &gradient, &map));
  wrong.device.device_type = kDLCUDA;
  wrong.device.device_id = -1;
  INVALID("number -1", cam(&wrong, &gradient, &map));

  medcam_workspace* other = workspace;
  DLDevice metal = {kDLMetal, 0}, cuda = {kDLCUDA, 0}, far = {kDLCUDA, 4096};
  INVALID("type 8", medcam_workspace_create(metal, &other));
  CHECK(other == NULL);
  other = workspace;
  REFUSED(MEDCAM_UNAVAILABLE, "", medcam_workspace_create(far, &other));
  CHECK(other == NULL);
  REFUSED(MEDCAM_UNAVAILABLE, "", medcam_cuda_status(4096));
  REFUSED(MEDCAM_UNAVAILABLE, "", medcam_cuda_status(-1));
  if (medcam_cuda_status(0) == MEDCAM_OK) {
    puts("there is a GPU, so that its absence is not tested");
    return;
  }
  REFUSED(MEDCAM_UNAVAILABLE, "no CUDA d", medcam_cuda_status(0));
  REFUSED(MEDCAM_UNAVAILABLE, "no CUDA d", medcam_workspace_create(cuda, &other));
  printf("without a GPU: %s\n", medcam_last_error());
}

static void values(void) {
  DLTensor activation = F32(a, 1, 2, 2, 2), gradient = F32(g, 1, 2, 2, 2), map = F32(out, 1, 2, 2);
  DLTensor mask = U8(bytes, 1, 2, 2), half = F16(out, 1, 2, 2);
  medcam_evaluation found;
  g[5] = NAN;
  INVALID("not finite", cam(&activation, &gradient, &map));
  g[5] = 0;
  a[3] = INFINITY;
  INVALID("not finite", cam(&activation, &gradient, &map));
  a[3] = 1e6f;
  g[0] = 4;
  INVALID("65504", medcam_cam(workspace, 0, 0, &activation, &gradient, &half, NULL, NULL));
  a[3] = 0;
  out[1] = NAN;
  INVALID("not finite", medcam_normalize(workspace, &map, NULL));
  INVALID("not in [0, 1]", medcam_evaluate(workspace, &map, &mask, NULL, &found, NULL));
  out[1] = 0;
}

static void* allocate(void* context, size_t size, void* stream) {
  (void)context, (void)size, (void)stream;
  return NULL;
}

static void allocators(void) {
  INVALID("allocator", medcam_workspace_set_allocator(workspace, NULL, allocate, NULL));
  OK(medcam_workspace_set_allocator(workspace, NULL, NULL, NULL));
}

int main(void) {
  workspace = cpu_workspace();
  null_pointers();
  shapes();
  strides();
  memory();
  types_and_choices();
  devices();
  values();
  allocators();
  /* After all that the workspace works. */
  DLTensor map = F32(out, 1, 2, 2);
  out[0] = 1, out[1] = 3, out[2] = 2, out[3] = 1;
  OK(medcam_normalize(workspace, &map, NULL));
  FLOATS(out, 0, 1, 0.5f, 0);
  medcam_workspace_destroy(workspace);
  puts("everything is refused");
  return 0;
}
