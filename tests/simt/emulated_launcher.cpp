// common/cuda/launcher.h without a card: launches run in the emulator on host memory.
#include "common/cuda/launcher.h"

#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <map>

#include "emulated_entries.h"

namespace {

std::map<std::string, void (*)(const emulated::Launch&)>& kernels() {
  static std::map<std::string, void (*)(const emulated::Launch&)> all;
  return all;
}
int order = 0, resident = 6, launches = 0;
at::Tensor counters;

}  // namespace

void emulated::add(const char* kernel, void (*run)(const Launch&)) {
  kernels()[kernel] = run;
}

extern "C" {
void emulated_configure(int block_order, int resident_blocks) {
  order = block_order;
  resident = resident_blocks;
}
int emulated_take_launch_count() {
  const int n = launches;
  launches = 0;
  return n;
}
// Whether every kernel left its counter at zero.
int emulated_counters_are_zero() {
  return !counters.defined() || counters.count_nonzero().item<int64_t>() == 0;
}
}

namespace gan_fast::cuda {

int Kernel::resident_blocks(c10::Device, unsigned) {
  return resident;
}

void Kernel::enqueue(c10::Device, Grid grid, unsigned block, unsigned shared_bytes, const void* arguments) {
  const auto found = kernels().find(name_);
  TORCH_CHECK(found != kernels().end(), "no emulated kernel ", name_, " of ", op_);
  ++launches;
  found->second({{grid.x, grid.y, grid.z}, block, shared_bytes, order, arguments});
}

at::Tensor tickets(c10::Device device, int64_t count) {
  TORCH_CHECK(count <= 64);
  if (!counters.defined()) counters = at::zeros({64}, at::TensorOptions().dtype(at::kInt).device(device));
  return counters;
}

}  // namespace gan_fast::cuda
