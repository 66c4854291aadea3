/* Every function, on numbers that were worked out by hand. */
#include "check.h"

static medcam_workspace* workspace;

static void chains(void) {
  float a[] = {1, 3, /* channel 1 */ 0, 1}, g[] = {1, 3, /* channel 1 */ -1, -3}, map[2];
  DLTensor activation = F32(a, 1, 2, 1, 2), gradient = F32(g, 1, 2, 1, 2), out = F32(map, 1, 1, 2);
  medcam_map_info info = {0, 0, 7};

  /* The weights are 2 and -2. */
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM, 0, &activation, &gradient, &out, &info, NULL));
  FLOATS(map, 2, 4);
  CHECK(info.minimum == 2 && info.maximum == 4 && info.weights_cancel == 0);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM, 1, &activation, &gradient, &out, NULL, NULL));
  FLOATS(map, 0, 1);
  OK(medcam_cam(workspace, MEDCAM_HIRES_CAM, 0, &activation, &gradient, &out, NULL, NULL));
  FLOATS(map, 1, 6);
  OK(medcam_cam(workspace, MEDCAM_LAYER_CAM, 0, &activation, &gradient, &out, NULL, NULL));
  FLOATS(map, 1, 9);

  /* The same, channels last, as (B, 1, H, W), on another grid, in other types. */
  float a_last[] = {1, 0, 3, 1}, g_last[] = {1, -1, 3, -3};
  int64_t last[] = {4, 1, 4, 2};
  DLTensor a_view = F32(a_last, 1, 2, 1, 2), g_view = F32(g_last, 1, 2, 1, 2);
  a_view.strides = g_view.strides = last;
  uint8_t bytes[4];
  DLTensor eight = U8(bytes, 1, 1, 1, 4);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM, 1, &a_view, &g_view, &eight, &info, NULL));
  NUMBERS(bytes, 0, 64, 191, 255);
  CHECK(info.minimum == 2 && info.maximum == 4);

  uint16_t a_bf16[] = {0x3F80, 0x4040, 0, 0x3F80}, g_bf16[] = {0x3F80, 0x4040, 0xBF80, 0xC040},
           half[2];
  DLTensor a_half = BF16(a_bf16, 1, 2, 1, 1, 2), g_half = BF16(g_bf16, 1, 2, 1, 1, 2);
  DLTensor halves = F16(half, 1, 1, 1, 2);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM, 0, &a_half, &g_half, &halves, NULL, NULL));
  NUMBERS(half, 0x4000, 0x4400);
  uint16_t a_f16[] = {0x3C00, 0x4200, 0, 0x3C00}, g_f16[] = {0x3C00, 0x4200, 0xBC00, 0xC200};
  a_half = F16(a_f16, 1, 2, 1, 2);
  g_half = F16(g_f16, 1, 2, 1, 2);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM, 0, &a_half, &g_half, &out, NULL, NULL));
  FLOATS(map, 2, 4);

  /* Grad-CAM++: the activations add up to 2; D is 2 G^3, or -1/2. */
  float a_plus[] = {0.5f, 1, 0.5f}, g_plus[] = {1, -1, 0}, three[3];
  activation = F32(a_plus, 1, 1, 1, 3);
  gradient = F32(g_plus, 1, 1, 1, 3);
  out = F32(three, 1, 1, 3);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM_PLUS_PLUS, 0, &activation, &gradient, &out, &info,
                NULL));
  FLOATS(three, 0.125f, 0.25f, 0.125f);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM, 0, &activation, &gradient, &out, NULL,
                NULL));
  FLOATS(three, 1 / 3.f, 2 / 3.f, 1 / 3.f);
  /* A G is 1, and an epsilon over G^2 is 1e-6 2^20 or 1e-7 2^20. */
  float a_inverse[] = {1024, 0, 0}, g_small[] = {1 / 1024.f, 0, 0};
  activation = F32(a_inverse, 1, 1, 1, 3);
  gradient = F32(g_small, 1, 1, 1, 3);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM_PLUS_PLUS_PAPER_EPSILON, 0, &activation, &gradient, &out,
                NULL, NULL));
  FLOATS(three, 1 / 4.048576f, 0, 0);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM_EPSILON, 0, &activation, &gradient,
                &out, NULL, NULL));
  FLOATS(three, 1 / 3.1048576f, 0, 0);

  /* Weights that cancel, in the first of two samples. */
  float a_two[] = {1, 1, 1, 1}, g_two[] = {1, -1 + 1e-7f, 1, -0.5f}, two[4];
  medcam_map_info infos[2];
  activation = F32(a_two, 2, 1, 1, 2);
  gradient = F32(g_two, 2, 1, 1, 2);
  out = F32(two, 2, 1, 2);
  OK(medcam_cam(workspace, MEDCAM_GRAD_CAM, 1, &activation, &gradient, &out, infos, NULL));
  CHECK(infos[0].weights_cancel == 1 && infos[1].weights_cancel == 0);

  /* Guided Grad-CAM: the map 0, 1, 3, 4 times the guided map is 0, -1, 3, 2. */
  float a_guided[] = {0, 4}, g_guided[] = {1, 1}, guide[] = {5, -1, 1, 0.5f}, four[4];
  activation = F32(a_guided, 1, 1, 1, 2);
  gradient = F32(g_guided, 1, 1, 1, 2);
  DLTensor guided = F32(guide, 1, 1, 4);
  out = F32(four, 1, 1, 4);
  OK(medcam_guided_cam(workspace, MEDCAM_GRAD_CAM, 0, &activation, &gradient, &guided, &out, &info,
                       NULL));
  FLOATS(four, 0, -1, 3, 2);
  CHECK(info.minimum == -1 && info.maximum == 3);
  OK(medcam_guided_cam(workspace, MEDCAM_GRAD_CAM, 1, &activation, &gradient, &guided, &out, NULL,
                       NULL));
  FLOATS(four, 0.25f, 0, 1, 0.75f);
}

static void weights(void) {
  float g[] = {9, 1, 2, 3, /* channel 1 */ -1, 0, 4}, w[2];
  DLTensor gradient = F32(g, 1, 2, 1, 3), out = F32(w, 1, 2);
  gradient.byte_offset = sizeof *g;
  OK(medcam_channel_weights(workspace, &gradient, &out, NULL));
  FLOATS(w, 2, 1);

  float a_plus[] = {0.5f, 1, 0.5f}, g_plus[] = {1, -1, 0}, alpha[1];
  DLTensor activation = F32(a_plus, 1, 1, 1, 3);
  gradient = F32(g_plus, 1, 1, 1, 3);
  out = F32(alpha, 1, 1);
  OK(medcam_alpha_weights(workspace, MEDCAM_PAPER, &activation, &gradient, &out, NULL));
  FLOATS(alpha, 0.25f);
  OK(medcam_alpha_weights(workspace, MEDCAM_M3D_CAM, &activation, &gradient, &out, NULL));
  FLOATS(alpha, 2 / 3.f);
  /* A G is 1, and an epsilon over G^2 is 1e-6 2^20 or 1e-7 2^20. */
  float a_inverse[] = {1024, 0, 0}, g_small[] = {1 / 1024.f, 0, 0};
  activation = F32(a_inverse, 1, 1, 1, 3);
  gradient = F32(g_small, 1, 1, 1, 3);
  OK(medcam_alpha_weights(workspace, MEDCAM_PAPER_EPSILON, &activation, &gradient, &out, NULL));
  FLOATS(alpha, 1 / 1024.f / 4.048576f);
  OK(medcam_alpha_weights(workspace, MEDCAM_M3D_CAM_EPSILON, &activation, &gradient, &out, NULL));
  FLOATS(alpha, 1 / 1024.f / 3.1048576f);

  float a[] = {1, 2, 3, /* channel 1 */ 4, 0, 1}, given[] = {2, -1}, sums[3];
  DLTensor in = F32(given, 1, 2);
  activation = F32(a, 1, 2, 1, 3);
  out = F32(sums, 1, 1, 3);
  OK(medcam_project(workspace, 1, &in, &activation, &out, NULL));
  FLOATS(sums, 0, 4, 5);
  OK(medcam_project(workspace, 0, &in, &activation, &out, NULL));
  FLOATS(sums, -2, 4, 5);
  OK(medcam_channel_mean(workspace, &activation, &out, NULL));
  FLOATS(sums, 2.5f, 1, 2);

  float a_voxel[] = {1, 3, /* channel 1 */ 2, 1}, g_voxel[] = {2, 1, /* channel 1 */ -0.5f, -4},
        map[2];
  activation = F32(a_voxel, 1, 2, 1, 2);
  gradient = F32(g_voxel, 1, 2, 1, 2);
  out = F32(map, 1, 1, 2);
  OK(medcam_elementwise(workspace, MEDCAM_HIRES_CAM, &activation, &gradient, &out, NULL));
  FLOATS(map, 1, 0);
  OK(medcam_elementwise(workspace, MEDCAM_LAYER_CAM, &activation, &gradient, &out, NULL));
  FLOATS(map, 2, 3);

  float x[] = {1, 1, -1, 0}, g_out[] = {0.5f, -0.5f, 0.5f, 0.5f}, g_in[4];
  DLTensor input = F32(x, 4);
  gradient = F32(g_out, 4);
  out = F32(g_in, 4);
  OK(medcam_guided_activation(workspace, &input, &gradient, &out, NULL));
  FLOATS(g_in, 0.5f, 0, 0, 0);
}

static void maps(void) {
  float square[] = {0, 4, 8, 12}, wide[8];
  DLTensor map = F32(square, 1, 2, 2), out = F32(wide, 1, 2, 4);
  OK(medcam_resample(workspace, MEDCAM_LINEAR, 0, &map, &out, NULL));
  FLOATS(wide, 0, 1, 3, 4, 8, 9, 11, 12);
  OK(medcam_resample(workspace, MEDCAM_NEAREST, 0, &map, &out, NULL));
  FLOATS(wide, 0, 0, 4, 4, 8, 8, 12, 12);
  OK(medcam_resample(workspace, MEDCAM_NEAREST, 1, &map, &out, NULL));
  FLOATS(wide, 0, 0, 1 / 3.f, 1 / 3.f, 2 / 3.f, 2 / 3.f, 1, 1);

  /* From a tensor of the host that a GPU can read. */
  float line[] = {2, 6};
  uint8_t bytes[4];
  map = F32(line, 1, 1, 1, 2);
  map.device.device_type = kDLCUDAHost;
  out = U8(bytes, 1, 1, 4);
  OK(medcam_resample(workspace, MEDCAM_LINEAR, 1, &map, &out, NULL));
  NUMBERS(bytes, 0, 64, 191, 255);

  float two[] = {2, 4, 3, /* sample 1 */ 7, 7, 7};
  map = F32(two, 2, 1, 3);
  OK(medcam_normalize(workspace, &map, NULL));
  FLOATS(two, 0, 1, 0.5f, 0, 0, 0);

  float small[] = {0, 4}, guide[] = {5, -1, 1, 0.5f}, product[4];
  map = F32(small, 1, 1, 2);
  DLTensor guided = F32(guide, 1, 1, 4);
  out = F32(product, 1, 1, 4);
  OK(medcam_guided_product(workspace, 0, &map, &guided, &out, NULL));
  FLOATS(product, 0, -1, 3, 2);
  OK(medcam_guided_product(workspace, 1, &map, &guided, &out, NULL));
  FLOATS(product, 0.25f, 0, 1, 0.75f);
}

static void evaluations(void) {
  float m[] = {0, 0.09f, 0.9f, 1, /* sample 1 */ 0, 0.25f, 0.25f, 1};
  uint8_t inside[] = {0, 0, 1, 0, /* sample 1 */ 0, 1, 0, 255};
  DLTensor map = F32(m, 2, 1, 4), mask = U8(inside, 2, 1, 4);
  medcam_evaluation found[2];
  OK(medcam_evaluate(workspace, &map, &mask, NULL, found, NULL));
  CHECK(found[0].threshold > 0.09f && found[0].threshold < 0.9f);
  CHECK(found[0].voxels == 4 && found[0].in_mask == 1);
  CHECK(found[0].above == 2 && found[0].above_in_mask == 1);
  CHECK(fabs(found[0].sum - 1.99) < 1e-7 && fabs(found[0].sum_in_mask - 0.9) < 1e-7);
  CHECK(fabs(found[0].sum_above - 1.9) < 1e-7 && fabs(found[0].sum_above_in_mask - 0.9) < 1e-7);
  CHECK(found[1].voxels == 4 && found[1].in_mask == 2 && found[1].sum == 1.5);

  float threshold = 0.25f;
  mask.dtype.code = kDLBool;
  OK(medcam_evaluate(workspace, &map, &mask, &threshold, found, NULL));
  CHECK(found[0].threshold == 0.25f && found[0].above == 2);
  CHECK(found[1].above == 3 && found[1].above_in_mask == 2 && found[1].sum_above_in_mask == 1.25);
}

int main(void) {
  char version[32];
  sprintf(version, "%d.%d.%d", MEDCAM_VERSION_MAJOR, MEDCAM_VERSION_MINOR, MEDCAM_VERSION_PATCH);
  CHECK(strcmp(medcam_version(), version) == 0);
  CHECK(medcam_abi_version() == MEDCAM_ABI_VERSION);
  CHECK(strcmp(medcam_last_error(), "") == 0);
  workspace = cpu_workspace();
  chains();
  weights();
  maps();
  evaluations();
  size_t bytes = 7;
  OK(medcam_workspace_bytes(workspace, &bytes));
  CHECK(bytes == 0);
  medcam_workspace_destroy(workspace);
  medcam_workspace_destroy(NULL);
  puts("every number is right");
  return 0;
}
