#include "upfirdn2d/upfirdn2d_host.h"

#include <cstdlib>

namespace gan_fast {

void check_upfirdn2d(
    const Tensor& x, const OptionalTensor& f, at::IntArrayRef up, at::IntArrayRef down, c10::SymIntArrayRef before,
    c10::SymIntArrayRef size) {
  storage_code(x.scalar_type());
  TORCH_CHECK_VALUE(x.dim() == 4, "upfirdn2d got images of shape ", x.sym_sizes(), "; expected [N, C, H, W]");
  TORCH_CHECK_VALUE(
      up.size() == 2 && down.size() == 2 && before.size() == 2 && size.size() == 2,
      "upfirdn2d takes up, down, padding before and size as two numbers each, [x, y], but got ", up.size(), ", ", down.size(),
      ", ", before.size(), " and ", size.size());
  constexpr int64_t kMost = 1 << 16;
  for (const int64_t factor : {up[0], up[1], down[0], down[1]}) {
    TORCH_CHECK_VALUE(factor >= 1 && factor <= kMost, "upfirdn2d got a factor of ", factor, "; expected 1 to ", kMost);
  }
  if (f.has_value()) {
    TORCH_CHECK_TYPE(f->is_floating_point(), "upfirdn2d expects a floating-point filter, but got ", name_of(f->scalar_type()));
    TORCH_CHECK_VALUE(
        f->dim() == 1 || f->dim() == 2, "upfirdn2d got a filter of shape ", f->sym_sizes(),
        "; expected [n] (separable) or [fh, fw]");
    TORCH_CHECK_VALUE(
        f->device() == x.device(), "upfirdn2d got a filter on ", f->device(), " for images on ", x.device(), "; move it there");
  }
}

Tensor empty_result(const Tensor& x, c10::SymIntArrayRef size) {
  return at::empty_symint(
      {x.sym_size(0), x.sym_size(1), size[1], size[0]}, x.options(), x.suggest_memory_format());
}

std::array<c10::SymInt, 2> filter_size(const OptionalTensor& f) {
  if (!f.has_value()) {
    return {1, 1};
  }
  return {f->sym_size(-1), f->sym_size(0)};
}

void check_result(const OptionalTensor& f, at::IntArrayRef before, at::IntArrayRef size) {
  TORCH_CHECK_VALUE(
      size[0] >= 1 && size[1] >= 1, "upfirdn2d got a result size of ", size[1], " x ", size[0],
      " (height x width), which is empty; pad more, or take a smaller filter");
  constexpr int64_t kMost = int64_t{1} << 40;
  TORCH_CHECK_VALUE(
      std::abs(before[0]) < kMost && std::abs(before[1]) < kMost, "upfirdn2d got a padding of ", before,
      "; expected numbers below 2^40");
  TORCH_CHECK_VALUE(
      !f.has_value() || (f->numel() > 0 && f->size(0) <= 4096 && f->size(-1) <= 4096), "upfirdn2d got a filter of shape ",
      f.has_value() ? f->sizes() : at::IntArrayRef(), "; expected 1 to 4096 taps along each axis");
}

ImageRows image_rows(const Tensor& x) {
  const at::MemoryFormat format = x.suggest_memory_format();
  const bool last = format == at::MemoryFormat::ChannelsLast;
  const bool whole = last ? (x.stride(1) == 1 || x.size(1) == 1) && (x.stride(3) == x.size(1) || x.size(3) == 1)
                          : x.stride(3) == 1 || x.size(3) == 1;
  const Tensor rows = whole ? x : x.contiguous(format);
  return {rows, last, rows.stride(0), rows.stride(1), rows.stride(2)};
}

}  // namespace gan_fast
