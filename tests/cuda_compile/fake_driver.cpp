// A libcuda.so.1 for the launcher's test: NVIDIA's own prototypes, functions that log what they were given and do as told by
// FAKE_CUDA, a list of words: "no_image" (embedded code has none for this card), "capturing", "bad_launch", "old" (cuInit fails).
#include <cuda.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

static bool told(const char* word) {
  const char* all = std::getenv("FAKE_CUDA");
  return all && std::strstr(all, word);
}
static thread_local CUcontext current = nullptr;
template <class T>
static T handle(long n) { return reinterpret_cast<T>(n); }

extern "C" {
CUresult cuInit(unsigned flags) { return flags || told("old") ? CUDA_ERROR_SYSTEM_DRIVER_MISMATCH : CUDA_SUCCESS; }
CUresult cuDriverGetVersion(int* v) { *v = 13000; return CUDA_SUCCESS; }
CUresult cuGetErrorName(CUresult e, const char** s) {
  *s = e == CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES" : e == CUDA_ERROR_SYSTEM_DRIVER_MISMATCH ? "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH" : "CUDA_ERROR_OTHER";
  return CUDA_SUCCESS;
}
CUresult cuGetErrorString(CUresult, const char** s) { *s = "as told"; return CUDA_SUCCESS; }
CUresult cuDeviceGet(CUdevice* d, int ordinal) { *d = 10 + ordinal; return CUDA_SUCCESS; }
CUresult cuDeviceGetAttribute(int* v, CUdevice_attribute a, CUdevice d) {
  *v = a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR ? 12 : a == CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR ? 1 : a == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT ? 132 : -1;
  return d >= 10 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}
CUresult cuDevicePrimaryCtxRetain(CUcontext* c, CUdevice d) { std::printf("retain %d\n", d); *c = handle<CUcontext>(100 + d); return CUDA_SUCCESS; }
CUresult cuCtxGetCurrent(CUcontext* c) { *c = current; return CUDA_SUCCESS; }
CUresult cuCtxPushCurrent(CUcontext c) { std::printf("push %ld\n", (long)c); current = c; return CUDA_SUCCESS; }
CUresult cuCtxPopCurrent(CUcontext* c) { *c = current; current = nullptr; return CUDA_SUCCESS; }
CUresult cuLibraryLoadData(CUlibrary* l, const void* code, CUjit_option* o, void** v, unsigned n, CUlibraryOption* lo, void** lv, unsigned ln) {
  std::printf("load %s\n", static_cast<const char*>(code));
  if (o || v || n || lo || lv || ln) return CUDA_ERROR_INVALID_VALUE;
  *l = handle<CUlibrary>(std::strncmp(static_cast<const char*>(code), "fatbin", 6) == 0 ? 7 : 8);
  return CUDA_SUCCESS;
}
CUresult cuLibraryGetKernel(CUkernel* k, CUlibrary l, const char* name) {
  std::printf("kernel %s of %ld\n", name, (long)l);
  *k = handle<CUkernel>((long)l * 10);
  return CUDA_SUCCESS;
}
CUresult cuKernelGetFunction(CUfunction* f, CUkernel k) {
  if (!current) return CUDA_ERROR_INVALID_CONTEXT;
  if ((long)k == 70 && told("no_image")) return CUDA_ERROR_NO_BINARY_FOR_GPU;
  *f = handle<CUfunction>((long)k + 1);
  return CUDA_SUCCESS;
}
CUresult cuStreamIsCapturing(CUstream, CUstreamCaptureStatus* s) {
  *s = told("capturing") ? CU_STREAM_CAPTURE_STATUS_ACTIVE : CU_STREAM_CAPTURE_STATUS_NONE;
  return CUDA_SUCCESS;
}
CUresult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CUfunction f, int block, size_t shared) {
  std::printf("occupancy %ld %d %zu\n", (long)f, block, shared);
  *n = 3;
  return CUDA_SUCCESS;
}
CUresult cuLaunchKernel(CUfunction f, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz, unsigned shared,
                        CUstream stream, void** parameters, void** extra) {
  std::printf("launch %ld grid %u %u %u block %u %u %u shared %u stream %ld context %ld value %d extra %d\n", (long)f, gx, gy, gz, bx, by, bz,
              shared, (long)stream, (long)current, *static_cast<int*>(parameters[0]), extra != nullptr);
  return told("bad_launch") ? CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES : CUDA_SUCCESS;
}
}
