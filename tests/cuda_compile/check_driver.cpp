// csrc/common/cuda/driver.h against NVIDIA's cuda.h: compiles, or names what differs.
#include <cuda.h>

#include <array>
#include <cstddef>
#include <string_view>
#include <type_traits>

#include "common/cuda/driver.h"

using gan_fast::cuda::Driver;

// Size and kind of what a function returns and takes: an enum of four bytes is as good as an int, any pointer as any other.
template <class T>
constexpr int shape() {
  return static_cast<int>(sizeof(T)) + (std::is_pointer_v<T> ? 100 : 0) + (std::is_floating_point_v<T> ? 1000 : 0);
}
template <class F>
struct Shape;
template <class R, class... A>
struct Shape<R (*)(A...)> {
  static constexpr std::array<int, sizeof...(A) + 1> value = {shape<R>(), shape<A>()...};
};
template <class Ours, class Theirs>
constexpr bool same() {
  if constexpr (Shape<Ours>::value.size() != Shape<Theirs>::value.size())
    return false;
  else
    return Shape<Ours>::value == Shape<Theirs>::value;
}

// cuda.h renames some entries to a later version of theirs: what the driver is asked for must be that name.
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define ENTRY(name, symbol)                                                              \
  static_assert(same<decltype(Driver::name), decltype(&::name)>(), #name " has another signature"); \
  static_assert(std::string_view(TEXT(name)) == symbol, #name " has another symbol");
#define CONSTANT(ours, theirs) static_assert(gan_fast::cuda::ours == static_cast<int>(theirs), #theirs);

CONSTANT(kSuccess, CUDA_SUCCESS)
CONSTANT(kInvalidImage, CUDA_ERROR_INVALID_IMAGE)
CONSTANT(kNoBinaryForGpu, CUDA_ERROR_NO_BINARY_FOR_GPU)
CONSTANT(kInvalidPtx, CUDA_ERROR_INVALID_PTX)
CONSTANT(kJitCompilerNotFound, CUDA_ERROR_JIT_COMPILER_NOT_FOUND)
CONSTANT(kUnsupportedPtxVersion, CUDA_ERROR_UNSUPPORTED_PTX_VERSION)
CONSTANT(kJitCompilationDisabled, CUDA_ERROR_JIT_COMPILATION_DISABLED)
CONSTANT(kNotFound, CUDA_ERROR_NOT_FOUND)
CONSTANT(kStreamCaptureImplicit, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)
CONSTANT(kCaptureStatusNone, CU_STREAM_CAPTURE_STATUS_NONE)
CONSTANT(kAttributeMultiprocessorCount, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)
CONSTANT(kAttributeComputeCapabilityMajor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
CONSTANT(kAttributeComputeCapabilityMinor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
