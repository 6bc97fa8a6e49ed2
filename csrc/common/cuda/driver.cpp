// Opens libcuda.so.1 and finds each entry of `Driver` by name.
#include "common/cuda/driver.h"

#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <type_traits>

namespace gan_fast::cuda {
namespace {

struct Loaded {
  Driver driver{};
  std::string error;
};

// cuda.h renames entries whose signature changed once (`_v2`); the plain symbol of those is the old signature.
Loaded load() {
  Loaded out;
  void* library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) {
    const char* why = dlerror();
    out.error = std::string("the CUDA driver was not found (") + (why ? why : "dlopen failed") + ")";
    return out;
  }
  auto find = [&](auto& entry, const char* name) {
    entry = reinterpret_cast<std::remove_reference_t<decltype(entry)>>(dlsym(library, name));
    if (!entry && out.error.empty())
      out.error = std::string("the CUDA driver has no ") + name + "; gan_fast needs the driver of CUDA 12.0 or newer";
  };
  Driver& d = out.driver;
  find(d.cuInit, "cuInit");
  find(d.cuDriverGetVersion, "cuDriverGetVersion");
  find(d.cuGetErrorName, "cuGetErrorName");
  find(d.cuGetErrorString, "cuGetErrorString");
  find(d.cuDeviceGet, "cuDeviceGet");
  find(d.cuDeviceGetAttribute, "cuDeviceGetAttribute");
  find(d.cuDevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain");
  find(d.cuCtxGetCurrent, "cuCtxGetCurrent");
  find(d.cuCtxPushCurrent, "cuCtxPushCurrent_v2");
  find(d.cuCtxPopCurrent, "cuCtxPopCurrent_v2");
  find(d.cuLibraryLoadData, "cuLibraryLoadData");
  find(d.cuLibraryGetKernel, "cuLibraryGetKernel");
  find(d.cuKernelGetFunction, "cuKernelGetFunction");
  find(d.cuStreamIsCapturing, "cuStreamIsCapturing");
  find(d.cuOccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor");
  find(d.cuLaunchKernel, "cuLaunchKernel");
  if (out.error.empty()) {
    const Result result = d.cuInit(0);
    const char* name = nullptr;
    if (result != kSuccess && (d.cuGetErrorName(result, &name) != kSuccess || !name)) name = "an unknown error";
    if (name) out.error = std::string("the CUDA driver could not start: cuInit gives ") + name;
  }
  return out;
}

const Loaded& loaded() {
  static const Loaded once = load();
  return once;
}

}  // namespace

const Driver& driver() {
  const Loaded& l = loaded();
  TORCH_CHECK(l.error.empty(), "gan_fast cannot launch on CUDA: ", l.error);
  return l.driver;
}

int driver_version(std::string* why) {
  const Loaded& l = loaded();
  int version = 0;
  if (l.error.empty() && l.driver.cuDriverGetVersion(&version) == kSuccess) return version;
  if (why) *why = l.error.empty() ? "cuDriverGetVersion failed" : l.error;
  return 0;
}

std::string error_name(Result result) {
  const char* name = nullptr;
  if (loaded().error.empty() && loaded().driver.cuGetErrorName(result, &name) == kSuccess && name) return name;
  return "CUDA error " + std::to_string(result);
}

void fail(Result result, const std::string& doing) {
  const char* text = nullptr;
  if (driver().cuGetErrorString(result, &text) != kSuccess) text = nullptr;
  TORCH_CHECK(false, "gan_fast: ", doing, " failed with ", error_name(result), text ? " (" : "", text ? text : "", text ? ")" : "");
}

}  // namespace gan_fast::cuda
