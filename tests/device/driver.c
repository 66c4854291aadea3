// A CUDA driver that gets no further than finding devices. STUB_INIT is what cuInit returns,
// STUB_DEVICES how many devices there are.
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
  return (void)attribute, (void)device, *value = 9, 0;
}
int cuGetErrorName(int status, const char** name) {
  return *name = status == 803 ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : "CUDA_ERROR", 0;
}
int cuGetErrorString(int status, const char** words) { return (void)status, *words = "stub", 0; }
// NVRTC asks a driver that it finds.
int cuGetExportTable(const void** table, const void* id) { return (void)id, *table = NULL, 500; }
