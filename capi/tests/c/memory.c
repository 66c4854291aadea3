/* Calls of varying shapes leave no memory behind. */
#define _GNU_SOURCE
#include <malloc.h>
#include <unistd.h>

#include "check.h"

enum { CALLS = 1000, WARM = 50, CHANNELS = 8, EDGE = 64 };

/* Resident bytes of this process, without those that malloc keeps free between blocks in use: how
   many these are depends on the order of sizes. */
static double resident(void) {
  malloc_trim(0);
  long all, pages;
  FILE* file = fopen("/proc/self/statm", "r");
  CHECK(file != NULL && fscanf(file, "%ld %ld", &all, &pages) == 2);
  fclose(file);
  return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static uint32_t state = 1;

/* From 1 to the greatest edge; the first calls get the greatest. */
static int64_t edge(int call) {
  state = state * 1664525u + 1013904223u;
  return call < 4 ? EDGE : 1 + (int64_t)((state >> 16) % EDGE);
}

int main(void) {
  const size_t voxels = (size_t)EDGE * EDGE * EDGE;
  float *a = malloc(sizeof *a * CHANNELS * voxels), *g = malloc(sizeof *g * CHANNELS * voxels);
  float* map = malloc(sizeof *map * voxels);
  uint8_t* mask = malloc(voxels);
  CHECK(a != NULL && g != NULL && map != NULL && mask != NULL);
  for (size_t i = 0; i < CHANNELS * voxels; i++) a[i] = (float)(i % 13), g[i] = (float)(i % 7) - 2;
  for (size_t i = 0; i < voxels; i++) map[i] = 0, mask[i] = i % 3 == 0;
  double warm = 0;
  for (int call = 0; call < CALLS; call++) {
    medcam_workspace* workspace = cpu_workspace();
    int64_t from[] = {1, 1 + (call < 4 ? 7 : call % 8), edge(call), edge(call), edge(call)};
    int64_t to[] = {1, edge(call), edge(call), edge(call)};
    DLTensor activation = tensor(a, kDLFloat, 32, 5, from),
             gradient = tensor(g, kDLFloat, 32, 5, from);
    DLTensor out = tensor(map, kDLFloat, 32, 4, to), inside = tensor(mask, kDLUInt, 8, 4, to);
    medcam_map_info info;
    medcam_evaluation found;
    OK(medcam_cam(workspace, call % 5, 1, &activation, &gradient, &out, &info, NULL));
    OK(medcam_evaluate(workspace, &out, &inside, NULL, &found, NULL));
    DLTensor wrong = out;
    wrong.ndim = 7;
    CHECK(medcam_normalize(workspace, &wrong, NULL) == MEDCAM_INVALID);
    medcam_workspace_destroy(workspace);
    if (call + 1 == WARM) warm = resident();
  }
  double end = resident();
  printf("%.0f bytes after %d calls, %.0f after %d\n", warm, WARM, end, CALLS);
  CHECK(fabs(end - warm) <= 0.01 * warm);
  free(a);
  free(g);
  free(map);
  free(mask);
  return 0;
}
