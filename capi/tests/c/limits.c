/* Where the host has no memory for a call, the call says so, and the process goes on. */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <sys/resource.h>

#include "check.h"

enum { EDGE = 512 };

/* Reserved, and not touched before a call does so. */
static void* reserve(size_t bytes) {
  void* memory =
      mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED);
  return memory;
}

int main(void) {
  medcam_workspace* workspace = cpu_workspace();
  const int64_t voxels = (int64_t)EDGE * EDGE * EDGE;
  float *a = reserve(sizeof *a * (size_t)voxels), *map = reserve(sizeof *map * (size_t)voxels);
  float* g = reserve(sizeof *g * (size_t)voxels);
  DLTensor activation = F32(a, 1, 1, EDGE, EDGE, EDGE), gradient = F32(g, 1, 1, EDGE, EDGE, EDGE);
  DLTensor out = F32(map, 1, EDGE, EDGE, EDGE), one = F32(a, 1, 1), small = F32(a, 1, 2, 2, 2);
  one.data = g + 5;
  /* 64 MiB more than there is by now: less than a map. */
  long pages = 0;
  FILE* file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%ld", &pages) == 1);
  fclose(file);
  struct rlimit limit;
  limit.rlim_cur = limit.rlim_max = (rlim_t)pages * 4096 + (64 << 20);
  CHECK(setrlimit(RLIMIT_AS, &limit) == 0);

  for (int method = MEDCAM_GRAD_CAM; method <= MEDCAM_LAYER_CAM; method++)
    CHECK(medcam_cam(workspace, method, 1, &activation, &gradient, &out, NULL, NULL) ==
          MEDCAM_INVALID);
  CHECK(medcam_guided_cam(workspace, 0, 1, &activation, &gradient, &out, &out, NULL, NULL) ==
        MEDCAM_INVALID);
  CHECK(medcam_channel_mean(workspace, &activation, &out, NULL) == MEDCAM_INVALID);
  CHECK(strstr(medcam_last_error(), "memory") != NULL);
  CHECK(medcam_elementwise(workspace, MEDCAM_LAYER_CAM, &activation, &gradient, &out, NULL) ==
        MEDCAM_INVALID);
  CHECK(medcam_project(workspace, 1, &one, &activation, &out, NULL) == MEDCAM_INVALID);
  CHECK(strstr(medcam_last_error(), "memory") != NULL);
  OK(medcam_resample(workspace, MEDCAM_LINEAR, 1, &small, &out, NULL));
  OK(medcam_normalize(workspace, &small, NULL));
  medcam_workspace_destroy(workspace);
  puts("without memory there is an error");
  return 0;
}
