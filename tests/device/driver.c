// A CUDA driver that gets no further than finding devices. STUB_INIT is what cuInit returns,
// STUB_DEVICES how many devices there are, STUB_VERSION the version of CUDA that it is for (12040
// is 12.4), STUB_ARCH the compute capability of the devices (90 is 9.0; 99 by default).
#include <stdlib.h>
#include <string.h>

static int number(const char* name) {
  const char* text = getenv(name);
  return text ? atoi(text) : 0;
}

int cuInit(unsigned flags) { return (void)flags, number("STUB_INIT"); }
int cuDeviceGetCount(int* count) { return *count = number("STUB_DEVICES"), 0; }
int cuDeviceGet(int* device, int ordinal) { return *device = ordinal, 0; }
int cuDeviceGetName(char* name, int bytes, int device) {
  return (void)device, strncpy(name, "stub", (size_t)bytes), 0;
}
int cuDeviceTotalMem_v2(size_t* bytes, int device) { return (void)device, *bytes = 1 << 20, 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  const int arch = number("STUB_ARCH") ? number("STUB_ARCH") : 99;
  // COMPUTE_CAPABILITY_MAJOR and _MINOR.
  *value = attribute == 75 ? arch / 10 : attribute == 76 ? arch % 10 : 9;
  return (void)device, 0;
}
int cuDriverGetVersion(int* version) { return *version = number("STUB_VERSION"), 0; }
int cuGetErrorName(int status, const char** name) {
  return *name = status == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : "CUDA_ERROR", 0;
}
int cuGetErrorString(int status, const char** words) { return (void)status, *words = "stub", 0; }
// NVRTC asks a driver that it finds.
int cuGetExportTable(const void** table, const void* id) { return (void)id, *table = NULL, 500; }
