// Drives csrc/common/cuda/launcher.cpp against fake_driver.cpp: a CUDA device for c10 that has streams and nothing else.
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <cstdio>
#include <cstring>
#include <string>

#include "common/cuda/embedded.h"
#include "common/cuda/launcher.h"

namespace {

struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device d) const override { return d; }
  c10::Device getDevice() const override { return {c10::DeviceType::CUDA, 0}; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device d) const override { return c10::Stream(c10::Stream::UNSAFE, d, 5); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 2; }
  void* getStreamNativeHandle(const c10::Stream s) const override { return reinterpret_cast<void*>(900 + s.device_index()); }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

struct Arguments {
  int value;
};

}  // namespace

namespace gan_fast::cuda {
const unsigned char image[] = "fatbin of op";
extern const EmbeddedKernel embedded_kernels[] = {{"op", image, sizeof(image), "source of op"}, {"bare", nullptr, 0, "source of bare"}};
extern const int embedded_kernel_count = 2;
extern const char* const embedded_archs = "80;90+PTX";
}  // namespace gan_fast::cuda

int main(int argc, char** argv) {
  namespace cuda = gan_fast::cuda;
  const std::string op = argc > 1 ? argv[1] : "op";
  if (argc > 2)
    cuda::set_compiler([](const std::string& name, const std::string& source, int major, int minor) {
      std::printf("compile %s '%s' %d %d\n", name.c_str(), source.c_str(), major, minor);
      return std::string("cubin of ") + name;
    });
  try {
    cuda::Kernel kernel(op, "kernel_f32"), second(op, "kernel_f64");
    const c10::Device first(c10::DeviceType::CUDA, 0), other(c10::DeviceType::CUDA, 1);
    std::printf("resident %d\n", kernel.resident_blocks(first, 256));
    kernel.launch(first, {4, 5, 6}, 256, Arguments{42}, 1024);
    kernel.launch(first, {1}, 32, Arguments{43});
    kernel.launch(other, {2}, 64, Arguments{44});
    second.launch(first, {3}, 96, Arguments{45});
    for (const cuda::Served& s : cuda::served()) std::printf("served %s on %d %s by %s\n", s.op.c_str(), s.device, s.arch.c_str(), s.by.c_str());
    kernel.launch(c10::Device(c10::DeviceType::CPU), {1}, 1, Arguments{0});
  } catch (const c10::Error& error) {
    std::printf("error %s\n", error.what_without_backtrace());
  }
}
