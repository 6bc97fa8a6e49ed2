#include "common/cuda/launcher.h"

#include <ATen/ops/zeros.h>
#include <c10/core/Stream.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>
#include <dlfcn.h>

#include <array>
#include <map>
#include <mutex>
#include <tuple>

#include "common/cuda/embedded.h"

namespace gan_fast::cuda {
namespace {

// Static state is never destroyed: the driver may be gone by the time static destructors run.
struct State {
  std::mutex mutex;
  Compiler compiler;
  std::map<std::string, LibraryHandle> embedded;                            // by op
  std::map<std::tuple<std::string, int, int>, LibraryHandle> compiled;      // by op, major, minor
  std::map<std::tuple<std::string, int>, Served> served;                    // by op, device
  std::map<std::pair<c10::DeviceIndex, c10::StreamId>, at::Tensor> tickets;
};
State& state() {
  static State& s = *new State;
  return s;
}

Device driver_device(c10::DeviceIndex index) {
  Device device = 0;
  check(driver().cuDeviceGet(&device, index), "finding CUDA device ", static_cast<int>(index));
  return device;
}

int attribute(c10::DeviceIndex index, int which) {
  int value = 0;
  check(driver().cuDeviceGetAttribute(&value, which, driver_device(index)), "asking CUDA device ", static_cast<int>(index), " for an attribute");
  return value;
}

// torch keeps one reference to a device's primary context for as long as it uses the device; this one lives as long as the process.
Context primary_context(c10::DeviceIndex index) {
  static std::array<std::atomic<Context>, 128>& contexts = *new std::array<std::atomic<Context>, 128>{};
  TORCH_CHECK(index >= 0 && index < static_cast<int>(contexts.size()), "gan_fast: CUDA device ", static_cast<int>(index), " is out of range");
  Context context = contexts[index].load(std::memory_order_acquire);
  if (!context) {
    check(driver().cuDevicePrimaryCtxRetain(&context, driver_device(index)), "opening CUDA device ", static_cast<int>(index));
    contexts[index].store(context, std::memory_order_release);
  }
  return context;
}

// The driver acts on the calling thread's current context. The runtime, which torch uses, makes a device's context current lazily, so a
// thread that has not called it yet has none.
class ContextGuard {
 public:
  explicit ContextGuard(c10::DeviceIndex index) {
    Context current = nullptr;
    check(driver().cuCtxGetCurrent(&current), "cuCtxGetCurrent");
    const Context wanted = primary_context(index);
    if (current == wanted) return;
    check(driver().cuCtxPushCurrent(wanted), "cuCtxPushCurrent");
    pushed_ = true;
  }
  ~ContextGuard() {
    Context popped = nullptr;
    if (pushed_) driver().cuCtxPopCurrent(&popped);
  }
  ContextGuard(const ContextGuard&) = delete;
  ContextGuard& operator=(const ContextGuard&) = delete;

 private:
  bool pushed_ = false;
};

constexpr int kMaxDevices = 128;

c10::DeviceIndex checked_index(c10::Device device, const std::string& kernel) {
  TORCH_CHECK(device.is_cuda() && device.index() >= 0 && device.index() < kMaxDevices, "gan_fast: ", kernel, " cannot run on ", device.str());
  return device.index();
}

// The driver found no code it can run on this card; any other failure is an error to report.
bool means_no_image(Result result) {
  switch (result) {
    case kInvalidImage:
    case kNoBinaryForGpu:
    case kInvalidPtx:
    case kJitCompilerNotFound:
    case kUnsupportedPtxVersion:
    case kJitCompilationDisabled:
    case kNotFound:
      return true;
    default:
      return false;
  }
}

const EmbeddedKernel& embedded_kernel(const std::string& op) {
  for (int i = 0; i < embedded_kernel_count; ++i)
    if (op == embedded_kernels[i].name) return embedded_kernels[i];
  TORCH_CHECK(false, "gan_fast was built without the device code of ", op, "; build it with GAN_FAST_BUILD=auto or cuda");
}

// A library loads into every context, each card taking its own image from it. `image` of the right card or an error is only known when
// a kernel's function is asked for in that card's context (loading is lazy), so that is part of the attempt.
Result find_function(LibraryHandle library, const std::string& name, Function* function) {
  KernelHandle kernel = nullptr;
  const Result result = driver().cuLibraryGetKernel(&kernel, library, name.c_str());
  return result == kSuccess ? driver().cuKernelGetFunction(function, kernel) : result;
}

Result load_library(const void* code, LibraryHandle* library) {
  return driver().cuLibraryLoadData(library, code, nullptr, nullptr, 0, nullptr, nullptr, 0);
}

Function load_embedded(const EmbeddedKernel& code, const std::string& name) {
  if (!code.fatbin || !code.fatbin_size) return nullptr;
  const std::lock_guard<std::mutex> lock(state().mutex);
  Function function = nullptr;
  Result result = kSuccess;
  auto found = state().embedded.find(code.name);
  if (found == state().embedded.end()) {
    LibraryHandle library = nullptr;
    result = load_library(code.fatbin, &library);
    if (result == kSuccess) found = state().embedded.emplace(code.name, library).first;
  }
  if (result == kSuccess) result = find_function(found->second, name, &function);
  if (result == kSuccess) return function;
  if (!means_no_image(result)) check(result, "loading ", name, " of ", code.name);
  return nullptr;
}

Function load_compiled(const EmbeddedKernel& code, const std::string& name, int major, int minor) {
  const auto key = std::make_tuple(std::string(code.name), major, minor);
  Compiler compiler;
  LibraryHandle library = nullptr;
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    const auto found = state().compiled.find(key);
    if (found != state().compiled.end()) library = found->second;
    compiler = state().compiler;
  }
  if (!library) {
    TORCH_CHECK(compiler, "gan_fast has no device code of ", code.name, " for sm_", major, minor, " (built for: ",
                *embedded_archs ? embedded_archs : "no architecture", ") and no compiler at hand: import gan_fast before using its operators");
    // The compiler is Python and takes the GIL, so no lock is held here; two threads that both get here compile the same thing twice.
    const std::string cubin = compiler(code.name, code.source, major, minor);
    check(load_library(cubin.data(), &library), "loading the NVRTC build of ", code.name);
    const std::lock_guard<std::mutex> lock(state().mutex);
    library = state().compiled.emplace(key, library).first->second;
  }
  Function function = nullptr;
  check(find_function(library, name, &function), "finding ", name, " in the NVRTC build of ", code.name);
  return function;
}

}  // namespace

Stream current_stream(c10::DeviceIndex device) {
  const c10::Stream stream = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(c10::Device(c10::DeviceType::CUDA, device));
  using Getter = int32_t (*)(int32_t, void**);
  // Some builds of torch do not implement native_handle for CUDA; those export this function of libtorch_cuda, which does the same.
  static const Getter getter = [&stream]() -> Getter {
    try {
      (void)stream.native_handle();
      return nullptr;
    } catch (const c10::Error&) {
      void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
      void* symbol = library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr;
      TORCH_CHECK(symbol, "gan_fast: this build of torch gives no native handle of a CUDA stream");
      return reinterpret_cast<Getter>(symbol);
    }
  }();
  if (!getter) return reinterpret_cast<Stream>(stream.native_handle());
  void* handle = nullptr;
  TORCH_CHECK(getter(device, &handle) == 0, "gan_fast: torch could not give the current CUDA stream");
  return reinterpret_cast<Stream>(handle);
}

bool is_capturing(Stream stream) {
  int status = kCaptureStatusNone;
  const Result result = driver().cuStreamIsCapturing(stream, &status);
  // The legacy stream may not even be asked while another stream captures.
  if (result == kStreamCaptureImplicit) return true;
  check(result, "cuStreamIsCapturing");
  return status != kCaptureStatusNone;
}

at::Tensor tickets(c10::Device device, int64_t count) {
  constexpr int64_t kKept = 64;
  const auto options = at::TensorOptions().dtype(at::kInt).device(device);
  const ContextGuard context(device.index());
  if (count > kKept || is_capturing(current_stream(device.index()))) return at::zeros({count}, options);
  const c10::Stream stream = c10::impl::VirtualGuardImpl(c10::DeviceType::CUDA).getStream(device);
  const auto key = std::make_pair(device.index(), stream.id());
  {
    const std::lock_guard<std::mutex> lock(state().mutex);
    const auto found = state().tickets.find(key);
    if (found != state().tickets.end()) return found->second;
  }
  // Not under the lock: the allocator may wait for the GIL (memory callbacks). Of two threads, the second takes the first's.
  at::Tensor fresh = at::zeros({kKept}, options);
  const std::lock_guard<std::mutex> lock(state().mutex);
  return state().tickets.emplace(key, fresh).first->second;
}

void set_compiler(Compiler compiler) {
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().compiler = std::move(compiler);
}

std::vector<Served> served() {
  const std::lock_guard<std::mutex> lock(state().mutex);
  std::vector<Served> all;
  for (const auto& entry : state().served) all.push_back(entry.second);
  return all;
}

Function Kernel::load(c10::DeviceIndex device, Stream stream) const {
  TORCH_CHECK(!is_capturing(stream), "gan_fast: the first use of ", name_, " on CUDA device ", static_cast<int>(device),
              " loads its code, which cannot happen while a CUDA graph is captured. Run the step once on a side stream before capture, "
              "as torch.cuda.graph's documentation describes (warm-up)");
  const int major = attribute(device, kAttributeComputeCapabilityMajor), minor = attribute(device, kAttributeComputeCapabilityMinor);
  const EmbeddedKernel& code = embedded_kernel(op_);
  Function function = load_embedded(code, name_);
  const char* by = function ? "fatbin" : "nvrtc";
  if (!function) function = load_compiled(code, name_, major, minor);
  const std::lock_guard<std::mutex> lock(state().mutex);
  state().served[{op_, device}] = {op_, device, "sm_" + std::to_string(major) + std::to_string(minor), by};
  return function;
}

Function Kernel::function(c10::DeviceIndex device, Stream stream) {
  Function function = functions_[device].load(std::memory_order_acquire);
  if (!function) {
    function = load(device, stream);
    functions_[device].store(function, std::memory_order_release);
  }
  return function;
}

int Kernel::resident_blocks(c10::Device device, unsigned block) {
  const c10::DeviceIndex index = checked_index(device, name_);
  int count = resident_[index].load(std::memory_order_relaxed);
  if (!count) {
    const ContextGuard context(index);
    check(driver().cuOccupancyMaxActiveBlocksPerMultiprocessor(&count, function(index, current_stream(index)), static_cast<int>(block), 0),
          "asking for the occupancy of ", name_);
    count *= attribute(index, kAttributeMultiprocessorCount);
    TORCH_CHECK(count > 0, "gan_fast: no block of ", name_, " with ", block, " threads fits CUDA device ", static_cast<int>(index));
    resident_[index].store(count, std::memory_order_relaxed);
  }
  return count;
}

void Kernel::enqueue(c10::Device device, Grid grid, unsigned block, unsigned shared_bytes, const void* arguments) {
  const c10::DeviceIndex index = checked_index(device, name_);
  TORCH_CHECK(grid.x && grid.y && grid.z && grid.x <= 0x7fffffffu && grid.y <= 65535u && grid.z <= 65535u && block && block <= 1024u,
              "gan_fast: ", name_, " has no launch of grid (", grid.x, ", ", grid.y, ", ", grid.z, ") and block ", block);
  const ContextGuard context(index);
  const Stream stream = current_stream(index);
  void* parameters[] = {const_cast<void*>(arguments)};
  check(driver().cuLaunchKernel(function(index, stream), grid.x, grid.y, grid.z, block, 1, 1, shared_bytes, stream, parameters, nullptr),
        "launching ", name_);
}

}  // namespace gan_fast::cuda
