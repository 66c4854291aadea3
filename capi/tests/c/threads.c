/* One workspace for two threads says so; one for each works. */
#define _POSIX_C_SOURCE 200809L
#include <pthread.h>
#include <time.h>

#include "check.h"

enum { EDGE = 64, CHANNELS = 4, VOXELS = EDGE * EDGE * EDGE };

/* What one thread works on. */
typedef struct {
  medcam_workspace* workspace;
  pthread_barrier_t* start;
  double until;
  long done, busy;
  char message[128];
} worker;

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

static void* work(void* of) {
  worker* self = of;
  float *a = malloc(sizeof *a * CHANNELS * VOXELS), *map = malloc(sizeof *map * VOXELS);
  for (int i = 0; i < CHANNELS * VOXELS; i++) a[i] = (float)(i % 7);
  DLTensor activation = F32(a, 1, CHANNELS, EDGE, EDGE, EDGE), out = F32(map, 1, EDGE, EDGE, EDGE);
  pthread_barrier_wait(self->start);
  do {
    medcam_status status = medcam_channel_mean(self->workspace, &activation, &out, NULL);
    if (status == MEDCAM_OK) {
      self->done++;
      for (int n = 0; n < VOXELS; n += 997)
        CHECK(map[n] == (a[n] + a[n + VOXELS] + a[n + 2 * VOXELS] + a[n + 3 * VOXELS]) / 4);
    } else {
      CHECK(status == MEDCAM_BUSY);
      self->busy++;
      strncpy(self->message, medcam_last_error(), sizeof self->message - 1);
    }
  } while (now() < self->until && !(self->busy && self->done));
  free(a);
  free(map);
  return NULL;
}

static void two_threads(medcam_workspace* first, medcam_workspace* second, worker pair[2]) {
  pthread_barrier_t start;
  pthread_t threads[2];
  CHECK(pthread_barrier_init(&start, NULL, 2) == 0);
  memset(pair, 0, 2 * sizeof *pair);
  for (int i = 0; i < 2; i++) {
    pair[i].workspace = i == 0 ? first : second;
    pair[i].start = &start;
    pair[i].until = now() + 0.5;
    CHECK(pthread_create(&threads[i], NULL, work, &pair[i]) == 0);
  }
  for (int i = 0; i < 2; i++) CHECK(pthread_join(threads[i], NULL) == 0);
  pthread_barrier_destroy(&start);
}

int main(void) {
  medcam_workspace *first = cpu_workspace(), *second = cpu_workspace();
  worker pair[2];
  /* They meet within milliseconds, unless the machine is that busy. */
  for (int i = 0; i < 60; i++) {
    two_threads(first, first, pair);
    if (pair[0].busy + pair[1].busy > 0) break;
  }
  CHECK(pair[0].busy + pair[1].busy > 0 && pair[0].done + pair[1].done > 0);
  for (int i = 0; i < 2; i++) CHECK(!pair[i].busy || strstr(pair[i].message, "another thread"));
  /* Messages are those of their thread. */
  CHECK(strcmp(medcam_last_error(), "") == 0);
  two_threads(first, second, pair);
  CHECK(pair[0].busy + pair[1].busy == 0 && pair[0].done > 0 && pair[1].done > 0);
  medcam_workspace_destroy(first);
  medcam_workspace_destroy(second);
  puts("threads are told apart");
  return 0;
}
