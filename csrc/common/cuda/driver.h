// The CUDA driver, found at run time. Nothing here needs a toolkit to build or a CUDA library to link, so one build of the extension
// loads on machines and on builds of torch with and without CUDA.
//
// The declarations repeat, in their own names, the few entries of the driver API that a launch needs; tests/cuda_compile checks each
// against NVIDIA's cuda.h.
#pragma once

#include <c10/util/StringUtil.h>

#include <cstddef>
#include <string>

namespace gan_fast::cuda {

using Result = int;  // CUresult
using Device = int;  // CUdevice
using Context = struct ContextOpaque*;
using Stream = struct StreamOpaque*;
using LibraryHandle = struct LibraryOpaque*;
using KernelHandle = struct KernelOpaque*;
using Function = struct FunctionOpaque*;

constexpr Result kSuccess = 0;
constexpr Result kInvalidImage = 200;
constexpr Result kNoBinaryForGpu = 209;
constexpr Result kInvalidPtx = 218;
constexpr Result kJitCompilerNotFound = 221;
constexpr Result kUnsupportedPtxVersion = 222;
constexpr Result kJitCompilationDisabled = 223;
constexpr Result kNotFound = 500;
constexpr Result kStreamCaptureImplicit = 906;

constexpr int kCaptureStatusNone = 0;
constexpr int kAttributeMultiprocessorCount = 16;
constexpr int kAttributeComputeCapabilityMajor = 75;
constexpr int kAttributeComputeCapabilityMinor = 76;

struct Driver {
  Result (*cuInit)(unsigned flags);
  Result (*cuDriverGetVersion)(int* version);
  Result (*cuGetErrorName)(Result error, const char** name);
  Result (*cuGetErrorString)(Result error, const char** text);
  Result (*cuDeviceGet)(Device* device, int ordinal);
  Result (*cuDeviceGetAttribute)(int* value, int attribute, Device device);
  Result (*cuDevicePrimaryCtxRetain)(Context* context, Device device);
  Result (*cuCtxGetCurrent)(Context* context);
  Result (*cuCtxPushCurrent)(Context context);
  Result (*cuCtxPopCurrent)(Context* context);
  Result (*cuLibraryLoadData)(LibraryHandle* library, const void* code, int* jit_options, void** jit_values, unsigned jit_count,
                              int* library_options, void** library_values, unsigned library_count);
  Result (*cuLibraryGetKernel)(KernelHandle* kernel, LibraryHandle library, const char* name);
  Result (*cuKernelGetFunction)(Function* function, KernelHandle kernel);
  Result (*cuStreamIsCapturing)(Stream stream, int* status);
  Result (*cuOccupancyMaxActiveBlocksPerMultiprocessor)(int* blocks, Function function, int block_size, size_t shared_bytes);
  Result (*cuLaunchKernel)(Function function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                           unsigned block_z, unsigned shared_bytes, Stream stream, void** parameters, void** extra);
};

// The driver, opened and initialised on first use; throws c10::Error saying what is missing.
const Driver& driver();

// The driver's version (13000 for 13.0), or 0 and, in `why`, the reason there is none. Never throws.
int driver_version(std::string* why);

std::string error_name(Result result);
[[noreturn]] void fail(Result result, const std::string& doing);

// Throws c10::Error with the driver's name of the error and what was being done, unless `result` is success.
template <class... Doing>
void check(Result result, const Doing&... doing) {
  if (result != kSuccess) fail(result, c10::str(doing...));
}

}  // namespace gan_fast::cuda
