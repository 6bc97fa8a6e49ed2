// Launches embedded kernels by name on the current stream of a device.
//
// A kernel takes exactly one parameter: a struct by value, declared in a header that the .cu file and the host code share, so that the
// two cannot disagree about it. The first launch on a device loads the op's device code there: the embedded fatbin, or, where it has no
// image for the card, a cubin that NVRTC compiles from the embedded source.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <array>
#include <atomic>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "common/cuda/driver.h"

namespace gan_fast::cuda {

struct Grid {
  unsigned x = 1, y = 1, z = 1;
};

class Kernel {
 public:
  // `op` names csrc/<op>/<op>.cu, `name` an extern "C" __global__ function in it.
  Kernel(std::string op, std::string name) : op_(std::move(op)), name_(std::move(name)) {}
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  // How many blocks of `block` threads the device runs at once. Loads the kernel.
  int resident_blocks(c10::Device device, unsigned block);

  // Enqueues kernel<<<grid, block, shared_bytes>>>(arguments) on the device's current stream. Throws c10::Error with the driver's
  // name of the error; during CUDA-graph capture, throws if this kernel has not run on the device before.
  template <class Arguments>
  void launch(c10::Device device, Grid grid, unsigned block, const Arguments& arguments, unsigned shared_bytes = 0) {
    static_assert(std::is_trivially_copyable_v<Arguments> && std::is_standard_layout_v<Arguments>, "a kernel takes one plain struct");
    static_assert(sizeof(Arguments) <= 4096, "kernel parameters are limited to 4 KB");
    enqueue(device, grid, block, shared_bytes, &arguments);
  }

 private:
  static constexpr int kMaxDevices = 128;

  void enqueue(c10::Device device, Grid grid, unsigned block, unsigned shared_bytes, const void* arguments);
  Function function(c10::DeviceIndex device, Stream stream);
  Function load(c10::DeviceIndex device, Stream stream) const;

  const std::string op_, name_;
  std::array<std::atomic<Function>, kMaxDevices> functions_{};
  std::array<std::atomic<int>, kMaxDevices> resident_{};
};

// The native handle of the device's current stream.
Stream current_stream(c10::DeviceIndex device);

bool is_capturing(Stream stream);

// `count` zeroed uint32 counters for kernels whose last block finishes a reduction. A kernel must leave each counter at zero (atomicInc
// that wraps at the number of blocks does). Outside capture they belong to the current stream, where launches follow one another; a
// captured graph may be replayed beside that stream, so capture gets counters of its own, zeroed by every replay. Hold the tensor until
// the launch is enqueued.
at::Tensor tickets(c10::Device device, int64_t count = 1);

// (op, source, major, minor) -> cubin for sm_<major><minor>.
using Compiler = std::function<std::string(const std::string&, const std::string&, int, int)>;
void set_compiler(Compiler compiler);

// Which code serves an op on a device where it has been launched.
struct Served {
  std::string op;
  int device;
  std::string arch;  // sm_90
  std::string by;    // "fatbin" or "nvrtc"
};
std::vector<Served> served();

}  // namespace gan_fast::cuda
