/* What the test programs share: tensors of arrays, and checks that say where they failed. */
#ifndef CHECK_H_
#define CHECK_H_

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "medcam.h"

static DLTensor tensor(void* data, uint8_t code, uint8_t bits, size_t axes, int64_t* shape) {
  DLTensor made;
  memset(&made, 0, sizeof made);
  made.data = data;
  made.device.device_type = kDLCPU;
  made.ndim = (int32_t)axes;
  made.dtype.code = code;
  made.dtype.bits = bits;
  made.dtype.lanes = 1;
  made.shape = shape;
  return made;
}

#define SHAPE(...) \
  sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t), (int64_t[]) { __VA_ARGS__ }
#define F32(data, ...) tensor(data, kDLFloat, 32, SHAPE(__VA_ARGS__))
#define F16(data, ...) tensor(data, kDLFloat, 16, SHAPE(__VA_ARGS__))
#define BF16(data, ...) tensor(data, kDLBfloat, 16, SHAPE(__VA_ARGS__))
#define U8(data, ...) tensor(data, kDLUInt, 8, SHAPE(__VA_ARGS__))

#define FAIL(...)                          \
  do {                                     \
    printf("%s:%d: ", __FILE__, __LINE__); \
    printf(__VA_ARGS__);                   \
    printf(": %s\n", medcam_last_error()); \
    exit(1);                               \
  } while (0)

#define CHECK(condition)                      \
  do {                                        \
    if (!(condition)) FAIL("%s", #condition); \
  } while (0)

#define OK(call) CHECK((call) == MEDCAM_OK)

/* Whether floats are these, to 1e-6. */
#define FLOATS(given, ...)                                                     \
  do {                                                                         \
    const float expected_[] = {__VA_ARGS__};                                   \
    for (size_t i_ = 0; i_ < sizeof expected_ / sizeof *expected_; i_++)       \
      if (!(fabs((double)(given)[i_] - (double)expected_[i_]) <= 1e-6))        \
        FAIL("%s[%d] is %.9g, not %.9g", #given, (int)i_, (double)(given)[i_], \
             (double)expected_[i_]);                                           \
  } while (0)

/* Whether whole numbers are these. */
#define NUMBERS(given, ...)                                                                \
  do {                                                                                     \
    const long expected_[] = {__VA_ARGS__};                                                \
    for (size_t i_ = 0; i_ < sizeof expected_ / sizeof *expected_; i_++)                   \
      if ((long)(given)[i_] != expected_[i_])                                              \
        FAIL("%s[%d] is %ld, not %ld", #given, (int)i_, (long)(given)[i_], expected_[i_]); \
  } while (0)

static medcam_workspace* cpu_workspace(void) {
  medcam_workspace* workspace = NULL;
  DLDevice cpu = {kDLCPU, 0};
  OK(medcam_workspace_create(cpu, &workspace));
  CHECK(workspace != NULL);
  return workspace;
}

#endif
