/* The same calls on a GPU as on the CPU: streams, memory and infos. */
#include <dlfcn.h>

#include "check.h"

enum { B = 2, C = 5, EDGE = 9, TO = 13, VOXELS = EDGE * EDGE, PIXELS = TO * TO };

/* The functions of the driver that a program without the CUDA toolkit needs. */
static struct {
  int (*init)(unsigned);
  int (*retain)(void**, int);
  int (*make_current)(void*);
  int (*create_stream)(void**, unsigned);
  int (*synchronize)(void*);
  int (*allocate)(void**, size_t);
  int (*release)(void*);
  int (*to_device)(void*, const void*, size_t, void*);
  int (*to_host)(void*, const void*, size_t, void*);
} cu;

static void load(void* driver, const char* name, void* function) {
  void* found = dlsym(driver, name);
  CHECK(found != NULL);
  memcpy(function, &found, sizeof found);
}

static void* streams[2];

static void start_driver(void) {
  void *driver = dlopen("libcuda.so.1", RTLD_NOW), *context;
  CHECK(driver != NULL);
  load(driver, "cuInit", &cu.init);
  load(driver, "cuDevicePrimaryCtxRetain", &cu.retain);
  load(driver, "cuCtxSetCurrent", &cu.make_current);
  load(driver, "cuStreamCreate", &cu.create_stream);
  load(driver, "cuStreamSynchronize", &cu.synchronize);
  load(driver, "cuMemAlloc_v2", &cu.allocate);
  load(driver, "cuMemFree_v2", &cu.release);
  load(driver, "cuMemcpyHtoDAsync_v2", &cu.to_device);
  load(driver, "cuMemcpyDtoHAsync_v2", &cu.to_host);
  CHECK(cu.init(0) == 0 && cu.retain(&context, 0) == 0 && cu.make_current(context) == 0);
  for (int i = 0; i < 2; i++) CHECK(cu.create_stream(&streams[i], 1) == 0);
}

/* The allocator of a pool: how often it was called, and what is out. */
static struct {
  int calls;
  size_t out;
  void* stream;
} pool;

static void* pool_allocate(void* context, size_t bytes, void* stream) {
  void* memory = NULL;
  CHECK(context == &pool && stream == pool.stream);
  if (cu.allocate(&memory, bytes) != 0) return NULL;
  pool.calls++;
  pool.out += bytes;
  return memory;
}

static void pool_free(void* context, void* memory, size_t bytes) {
  CHECK(context == &pool && cu.release(memory) == 0);
  pool.out -= bytes;
}

static void* no_memory(void* context, size_t bytes, void* stream) {
  (void)context, (void)bytes, (void)stream;
  return NULL;
}

static void* odd_memory(void* context, size_t bytes, void* stream) {
  (void)context, (void)bytes, (void)stream;
  return (void*)((char*)NULL + 257);
}

static int odd_freed;

static void odd_free(void* context, void* memory, size_t bytes) {
  (void)context, (void)bytes;
  odd_freed += memory == (void*)((char*)NULL + 257);
}

/* The same tensor of the device, with the same values. */
static DLTensor on_device(const DLTensor* host, void* stream) {
  DLTensor made = *host;
  size_t bytes = host->dtype.bits / 8;
  for (int axis = 0; axis < host->ndim; axis++) bytes *= (size_t)host->shape[axis];
  made.device.device_type = kDLCUDA;
  CHECK(cu.allocate(&made.data, bytes) == 0);
  CHECK(cu.to_device(made.data, host->data, bytes, stream) == 0 && cu.synchronize(stream) == 0);
  return made;
}

static float a[B * C * VOXELS], g[B * C * VOXELS], guide[B * PIXELS], map[B * PIXELS],
    back[B * PIXELS];
static float w[B * C], layer[B * VOXELS];
static uint8_t inside[B * PIXELS];

/* Waits for a tensor of the device and holds it against one of the host. */
static void same(const char* what, const DLTensor* device, const float* host, size_t count,
                 void* stream) {
  CHECK(cu.to_host(back, device->data, count * sizeof *back, stream) == 0);
  CHECK(cu.synchronize(stream) == 0);
  for (size_t i = 0; i < count; i++)
    if (!(fabs((double)back[i] - (double)host[i]) <= 2e-5 * (1 + fabs((double)host[i]))))
      FAIL("%s[%d] is %g on the GPU and %g on the CPU", what, (int)i, (double)back[i],
           (double)host[i]);
}

/* Every function on both; `gpu` is the workspace and `s` its stream. */
static void both(medcam_workspace* cpu, medcam_workspace* gpu, void* s) {
  DLTensor ha = F32(a, B, C, EDGE, EDGE), hg = F32(g, B, C, EDGE, EDGE),
           hguide = F32(guide, B, TO, TO);
  DLTensor hmap = F32(map, B, TO, TO), hw = F32(w, B, C), hlayer = F32(layer, B, EDGE, EDGE);
  DLTensor hinside = U8(inside, B, TO, TO);
  DLTensor da = on_device(&ha, s), dg = on_device(&hg, s), dguide = on_device(&hguide, s);
  DLTensor dmap = on_device(&hmap, s), dw = on_device(&hw, s), dlayer = on_device(&hlayer, s);
  DLTensor dinside = on_device(&hinside, s);
  medcam_map_info hinfos[B], dinfos[B];

  for (int method = MEDCAM_GRAD_CAM; method <= MEDCAM_GRAD_CAM_PLUS_PLUS_M3D_CAM_EPSILON;
       method++) {
    OK(medcam_cam(cpu, method, 1, &ha, &hg, &hmap, hinfos, NULL));
    OK(medcam_cam(gpu, method, 1, &da, &dg, &dmap, dinfos, s));
    for (int i = 0; i < B; i++) {
      CHECK(fabs((double)hinfos[i].maximum - (double)dinfos[i].maximum) < 1e-5);
      CHECK(hinfos[i].weights_cancel == dinfos[i].weights_cancel);
    }
    same("cam", &dmap, map, B * PIXELS, s);
    OK(medcam_guided_cam(cpu, method, 0, &ha, &hg, &hguide, &hmap, NULL, NULL));
    OK(medcam_guided_cam(gpu, method, 0, &da, &dg, &dguide, &dmap, NULL, s));
    same("guided_cam", &dmap, map, B * PIXELS, s);
  }
  OK(medcam_channel_weights(cpu, &hg, &hw, NULL));
  OK(medcam_channel_weights(gpu, &dg, &dw, s));
  same("channel_weights", &dw, w, B * C, s);
  OK(medcam_project(cpu, 0, &hw, &ha, &hlayer, NULL));
  OK(medcam_project(gpu, 0, &dw, &da, &dlayer, s));
  same("project", &dlayer, layer, B * VOXELS, s);
  OK(medcam_guided_product(cpu, 1, &hlayer, &hguide, &hmap, NULL));
  OK(medcam_guided_product(gpu, 1, &dlayer, &dguide, &dmap, s));
  same("guided_product", &dmap, map, B * PIXELS, s);
  for (int denominator = MEDCAM_PAPER; denominator <= MEDCAM_M3D_CAM_EPSILON; denominator++) {
    OK(medcam_alpha_weights(cpu, denominator, &ha, &hg, &hw, NULL));
    OK(medcam_alpha_weights(gpu, denominator, &da, &dg, &dw, s));
    same("alpha_weights", &dw, w, B * C, s);
  }
  OK(medcam_elementwise(cpu, MEDCAM_LAYER_CAM, &ha, &hg, &hlayer, NULL));
  OK(medcam_elementwise(gpu, MEDCAM_LAYER_CAM, &da, &dg, &dlayer, s));
  same("elementwise", &dlayer, layer, B * VOXELS, s);
  OK(medcam_channel_mean(cpu, &ha, &hlayer, NULL));
  OK(medcam_channel_mean(gpu, &da, &dlayer, s));
  same("channel_mean", &dlayer, layer, B * VOXELS, s);
  OK(medcam_normalize(cpu, &hlayer, NULL));
  OK(medcam_normalize(gpu, &dlayer, s));
  same("normalize", &dlayer, layer, B * VOXELS, s);
  OK(medcam_resample(cpu, MEDCAM_NEAREST, 0, &hlayer, &hmap, NULL));
  OK(medcam_resample(gpu, MEDCAM_NEAREST, 0, &dlayer, &dmap, s));
  same("resample", &dmap, map, B * PIXELS, s);
  DLTensor last = dlayer, dout = dlayer, hout = hlayer;
  hout.data = map;
  dout.data = dmap.data;
  last.data = dg.data;
  DLTensor hlast = hlayer;
  hlast.data = g;
  OK(medcam_guided_activation(cpu, &hlayer, &hlast, &hout, NULL));
  OK(medcam_guided_activation(gpu, &dlayer, &last, &dout, s));
  same("guided_activation", &dout, map, B * VOXELS, s);

  /* Otsu's threshold and the counts are equal to the last bit. */
  OK(medcam_resample(cpu, MEDCAM_LINEAR, 1, &hlayer, &hmap, NULL));
  CHECK(cu.to_device(dmap.data, map, sizeof map, s) == 0);
  medcam_evaluation hfound[B], dfound[B];
  memset(hfound, 0, sizeof hfound);
  memset(dfound, 0, sizeof dfound);
  OK(medcam_evaluate(cpu, &hmap, &hinside, NULL, hfound, NULL));
  OK(medcam_evaluate(gpu, &dmap, &dinside, NULL, dfound, s));
  CHECK(memcmp(hfound, dfound, sizeof hfound) == 0);

  /* Values that are not finite are found where somebody waits. */
  const float not_a_number = NAN;
  CHECK(cu.to_device(dg.data, &not_a_number, sizeof not_a_number, s) == 0);
  OK(medcam_cam(gpu, MEDCAM_GRAD_CAM, 1, &da, &dg, &dmap, NULL, s));
  CHECK(medcam_cam(gpu, MEDCAM_GRAD_CAM, 1, &da, &dg, &dmap, dinfos, s) == MEDCAM_INVALID);
  /* Memory of the host is none of the device. */
  CHECK(medcam_cam(gpu, MEDCAM_GRAD_CAM, 1, &ha, &dg, &dmap, NULL, s) == MEDCAM_INVALID);
  CHECK(cu.synchronize(s) == 0);
  DLTensor all[] = {da, dg, dguide, dmap, dw, dlayer, dinside};
  for (size_t i = 0; i < sizeof all / sizeof *all; i++) CHECK(cu.release(all[i].data) == 0);
}

int main(void) {
  if (medcam_cuda_status(0) != MEDCAM_OK) {
    printf("skipped: %s\n", medcam_last_error());
    return getenv("MEDCAM_REQUIRE_CUDA") != NULL;
  }
  start_driver();
  for (int i = 0; i < B * C * VOXELS; i++)
    a[i] = (float)((i * 7) % 11) / 4, g[i] = (float)((i * 5) % 13) / 8 - 0.5f;
  for (int i = 0; i < B * PIXELS; i++) guide[i] = (float)(i % 17) - 8, inside[i] = i % 3 == 0;
  DLDevice cuda = {kDLCUDA, 0};
  medcam_workspace *cpu = cpu_workspace(), *gpu;
  size_t bytes = 7;

  OK(medcam_workspace_create(cuda, &gpu));
  OK(medcam_workspace_bytes(gpu, &bytes));
  CHECK(bytes == 0);
  /* With the driver's memory, on the default stream. */
  both(cpu, gpu, NULL);
  OK(medcam_workspace_bytes(gpu, &bytes));
  CHECK(bytes > 0);

  /* With a pool: the second time it is not asked. */
  OK(medcam_workspace_set_allocator(gpu, &pool, pool_allocate, pool_free));
  OK(medcam_workspace_bytes(gpu, &bytes));
  CHECK(bytes == 0 && pool.calls == 0);
  pool.stream = streams[0];
  both(cpu, gpu, streams[0]);
  OK(medcam_workspace_bytes(gpu, &bytes));
  CHECK(bytes == pool.out && pool.out > 0 && pool.calls > 0);
  int calls = pool.calls;
  both(cpu, gpu, streams[0]);
  CHECK(pool.calls == calls);
  /* Another stream has memory of its own. */
  pool.stream = streams[1];
  both(cpu, gpu, streams[1]);
  CHECK(pool.calls > calls);
  medcam_workspace_destroy(gpu);
  CHECK(pool.out == 0);

  /* Pools that have none, or none that is aligned. */
  OK(medcam_workspace_create(cuda, &gpu));
  float* values = a;
  DLTensor host = F32(values, B, EDGE, EDGE), device = on_device(&host, NULL);
  OK(medcam_workspace_set_allocator(gpu, NULL, no_memory, odd_free));
  CHECK(medcam_normalize(gpu, &device, NULL) == MEDCAM_DEVICE);
  CHECK(strstr(medcam_last_error(), "allocator has no") != NULL);
  OK(medcam_workspace_set_allocator(gpu, NULL, odd_memory, odd_free));
  CHECK(medcam_normalize(gpu, &device, NULL) == MEDCAM_DEVICE && odd_freed == 1);
  CHECK(strstr(medcam_last_error(), "aligned") != NULL);
  OK(medcam_workspace_bytes(gpu, &bytes));
  CHECK(bytes == 0);
  OK(medcam_workspace_set_allocator(gpu, NULL, NULL, NULL));
  OK(medcam_normalize(gpu, &device, NULL));
  CHECK(cu.synchronize(NULL) == 0 && cu.release(device.data) == 0);
  medcam_workspace_destroy(gpu);
  medcam_workspace_destroy(cpu);
  puts("the GPU agrees with the CPU");
  return 0;
}
