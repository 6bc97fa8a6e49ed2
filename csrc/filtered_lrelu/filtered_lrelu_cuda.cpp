// filtered_lrelu on CUDA: one launch a pass.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "common/cuda/map_reduce_host.h"
#include "filtered_lrelu/filtered_lrelu_arguments.h"
#include "filtered_lrelu/filtered_lrelu_host.h"

namespace gan_fast {
namespace {

using OptionalTensor = std::optional<Tensor>;

int log2_or_none(int n) {
  int shift = 0;
  while ((1 << shift) < n) {
    ++shift;
  }
  return 1 << shift == n ? shift : -1;
}

// Where everything lies in shared memory for tiles of these sizes; returns the elements it takes.
int64_t lay_out(cuda::FilteredLreluArguments& a, int tile_w, int tile_h) {
  const FilterPass& p = a.pass;
  a.tile_w = tile_w;
  a.tile_h = tile_h;
  a.tiles_x = ceil_divide(p.horizontal.out, tile_w);
  a.tiles_y = ceil_divide(p.vertical.out, tile_h);
  // Entries that belong to the tile, though no result may need them, and the mask's last columns, which nothing else fills.
  a.t_w = std::max((tile_w - 1) * p.down + p.horizontal.down_taps, tile_w * p.down) + p.phases - 1;
  a.t_h = static_cast<int>(ceil_divide(std::max((tile_h - 1) * p.down + p.vertical.down_taps, tile_h * p.down) + 3, 4) * 4);
  a.in_w = (a.t_w - 1 + p.horizontal.up_taps - 1) / p.up + 1;
  a.in_h = (a.t_h - 1 + p.vertical.up_taps - 1) / p.up + 1;
  a.hu_count = p.hu_matrix ? p.horizontal.up_taps * p.vertical.up_taps : p.horizontal.up_taps;
  a.hd_count = p.hd_matrix ? p.horizontal.down_taps * p.vertical.down_taps : p.horizontal.down_taps;
  const int in = a.in_w * a.in_h, t = a.t_w * a.t_h;
  a.hd_at = a.hu_count;
  a.t_at = a.hd_at + a.hd_count;
  const int second = a.t_at + std::max(t, p.hu_matrix ? 0 : in);
  a.in_at = p.hu_matrix ? second : a.t_at;
  a.a_at = a.b_at = second;
  return second + std::max(p.hu_matrix ? in : a.in_h * a.t_w, p.hd_matrix ? 0 : tile_h * a.t_w);
}

void run_cuda(const HeldPass& h) {
  static cuda::KernelFamily kernels("filtered_lrelu", "filtered_lrelu");
  if (h.y.numel() == 0) {
    return;
  }
  const at::ScalarType storage = h.x.scalar_type();
  cuda::FilteredLreluArguments a{};
  a.pass = h.pass;
  const FilterPass& p = a.pass;
  a.up_shift = log2_or_none(p.up);
  a.phase_shift = log2_or_none(p.phases);
  for (const FilterAxis& axis : {p.horizontal, p.vertical}) {
    TORCH_CHECK_VALUE(
        std::max({axis.in * p.up, axis.width, axis.out * p.down}) + std::abs(axis.start) + std::abs(axis.offset) < (int64_t{1} << 30),
        "filtered_lrelu on CUDA serves images of up to 2^30 pixels a side between the filters, but got ", axis.width);
  }
  // The largest square tile that leaves room for it: 48 KiB a block need no opt-in.
  constexpr int64_t kShared = 48 * 1024;
  const int64_t size = c10::elementSize(accumulate_type(storage));
  int64_t bytes = 0;
  for (int tile = 32; tile >= 4; tile /= 2) {
    const auto fit = [tile](int64_t out) { return static_cast<int>(std::min<int64_t>(tile, ceil_divide(out, 4) * 4)); };
    bytes = lay_out(a, fit(p.horizontal.out), fit(p.vertical.out)) * size;
    if (bytes <= kShared) {
      break;
    }
  }
  TORCH_CHECK_VALUE(
      bytes <= kShared, "filtered_lrelu on CUDA has no room for filters of ", p.vertical.up_taps, " x ", p.horizontal.up_taps, " and ",
      p.vertical.down_taps, " x ", p.horizontal.down_taps, " taps in shared memory; gan_fast.reference_mode() has no such limit");
  const int64_t blocks = p.samples * p.channels * a.tiles_x * a.tiles_y;
  TORCH_CHECK_VALUE(blocks <= INT32_MAX, "filtered_lrelu on CUDA got more tiles than a launch can have: ", blocks);
  kernels.of(storage).launch(h.x.device(), {static_cast<unsigned>(blocks)}, cuda::kFilterThreads, a, static_cast<unsigned>(bytes));
}

std::tuple<Tensor, Tensor> forward_cuda(
    const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd, const OptionalTensor& b, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, std::optional<double> clamp, bool flip_filter, bool with_mask) {
  const c10::DeviceGuard guard(x.device());
  const HeldPass h =
      forward_pass(x, b, {fu.value_or(Tensor()), fd.value_or(Tensor()), up, down, padding.vec(), gain, slope, flip_filter}, clamp, with_mask);
  run_cuda(h);
  return {h.y, h.mask};
}

Tensor backward_cuda(
    const Tensor& dy, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, at::IntArrayRef size, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  const c10::DeviceGuard guard(dy.device());
  const HeldPass h = adjoint_pass(
      dy, mask, size, {fu.value_or(Tensor()), fd.value_or(Tensor()), up, down, padding.vec(), gain, slope, flip_filter});
  run_cuda(h);
  return h.y;
}

Tensor tangent_cuda(
    const Tensor& v, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  const c10::DeviceGuard guard(v.device());
  const HeldPass h =
      tangent_pass(v, mask, {fu.value_or(Tensor()), fd.value_or(Tensor()), up, down, padding.vec(), gain, slope, flip_filter});
  run_cuda(h);
  return h.y;
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("filtered_lrelu", &forward_cuda);
  m.impl("filtered_lrelu_backward", &backward_cuda);
  m.impl("filtered_lrelu_tangent", &tangent_cuda);
}

}  // namespace gan_fast
