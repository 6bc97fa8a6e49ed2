#include "filtered_lrelu/filtered_lrelu_host.h"

#include <limits>
#include <numeric>

#include "common/huge_pages.h"

namespace gan_fast {
namespace {

c10::SymInt taps(const Tensor& f, int axis) {
  return f.defined() ? f.sym_size(axis == 0 || f.dim() == 1 ? 0 : 1) : c10::SymInt(1);
}

// The one for axis 0 (vertical) or 1 (horizontal), its sizes known.
FilterAxis forward_axis(int64_t in, int64_t out, int axis, const FilterSettings& s) {
  FilterAxis a{};
  a.in = in;
  a.out = out;
  a.up_taps = static_cast<int>(taps(s.fu, axis).expect_int());
  a.down_taps = static_cast<int>(taps(s.fd, axis).expect_int());
  a.start = s.padding[axis == 0 ? 2 : 0];
  a.width = (out - 1) * s.down + a.down_taps;
  a.offset = 0;
  a.mask = a.width;
  return a;
}

FilterAxis adjoint_axis(const FilterAxis& f, int64_t up) {
  FilterAxis a{};
  a.in = f.out;
  a.out = f.in;
  a.up_taps = f.down_taps;
  a.down_taps = f.up_taps;
  a.start = f.up_taps + f.down_taps - 2 - f.start;
  a.width = (a.out - 1) * up + a.down_taps;
  a.offset = f.start - (f.up_taps - 1);
  a.mask = f.width;
  return a;
}

void set_filters(HeldPass& h, const Tensor& hu, const Tensor& hd) {
  const at::ScalarType type = accumulate_type(h.x.scalar_type());
  FilterPass& p = h.pass;
  if (hu.defined()) {
    h.hu = hu.detach().to(type).contiguous();
    p.hu = h.hu.const_data_ptr();
    p.hu_matrix = hu.dim() == 2;
  }
  if (hd.defined()) {
    h.hd = hd.detach().to(type).contiguous();
    p.hd = h.hd.const_data_ptr();
    p.hd_matrix = hd.dim() == 2;
  }
}

// The images, the result, the numbers.
HeldPass pass_of(const Tensor& x, at::MemoryFormat format, const FilterAxis& vertical, const FilterAxis& horizontal, int64_t up, int64_t down) {
  HeldPass h{};
  FilterPass& p = h.pass;
  h.x = x.contiguous(format);
  h.y = in_huge_pages(at::empty({x.size(0), x.size(1), vertical.out, horizontal.out}, x.options(), format));
  p.x = h.x.const_data_ptr();
  p.y = h.y.mutable_data_ptr();
  p.vertical = vertical;
  p.horizontal = horizontal;
  p.samples = x.size(0);
  p.channels = x.size(1);
  p.up = static_cast<int>(up);
  p.down = static_cast<int>(down);
  p.phases = static_cast<int>(std::lcm(up, down));
  p.limit = std::numeric_limits<double>::infinity();
  p.channels_last = format == at::MemoryFormat::ChannelsLast;
  return h;
}

void set_gains(FilterPass& p, const FilterSettings& s) {
  p.pos = s.gain * static_cast<double>(s.up * s.up);
  p.neg = p.pos * s.slope;
}

void read_mask(HeldPass& h, const Tensor& mask, at::MemoryFormat format) {
  h.mask = mask.contiguous(format);
  h.pass.mask = const_cast<unsigned char*>(h.mask.const_data_ptr<unsigned char>());  // such a pass only reads it
  h.pass.use = MaskUse::Read;
}

}  // namespace

std::array<c10::SymInt, 2> result_size(const Tensor& x, const FilterSettings& s) {
  std::array<c10::SymInt, 2> size;
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t padding = axis == 0 ? s.padding[2] + s.padding[3] : s.padding[0] + s.padding[1];
    size[axis] = (x.sym_size(2 + axis) * s.up + padding - (taps(s.fu, axis) - 1) - taps(s.fd, axis) + s.down) / s.down;
  }
  return size;
}

std::array<c10::SymInt, 2> mask_size(const std::array<c10::SymInt, 2>& result, const FilterSettings& s) {
  const int64_t phases = std::lcm(s.up, s.down);
  const c10::SymInt height = (result[0] - 1) * s.down + taps(s.fd, 0);
  const c10::SymInt width = (result[1] - 1) * s.down + taps(s.fd, 1);
  return {(height + 3) / 4, (width + (phases - 1)) / phases * phases};
}

void check_filtered_lrelu(const Tensor& x, const std::optional<Tensor>& b, const FilterSettings& s) {
  storage_code(x.scalar_type());
  TORCH_CHECK_VALUE(x.dim() == 4, "filtered_lrelu expects images [N, C, H, W], but got shape ", x.sym_sizes());
  TORCH_CHECK_VALUE(s.padding.size() == 4, "filtered_lrelu expects padding [x0, x1, y0, y1], but got ", s.padding.size(), " numbers");
  TORCH_CHECK_VALUE(
      s.up >= 1 && s.down >= 1 && s.up <= 64 && s.down <= 64, "filtered_lrelu expects factors from 1 to 64, but got up=", s.up,
      " and down=", s.down);
  for (const Tensor& f : {s.fu, s.fd}) {
    TORCH_CHECK_VALUE(
        !f.defined() || ((f.dim() == 1 || f.dim() == 2) && f.sym_numel() > 0),
        "filtered_lrelu expects filters [n] or [fh, fw], but got shape ", f.sym_sizes());
    TORCH_CHECK_VALUE(!f.defined() || f.device() == x.device(), "filtered_lrelu expects filters on ", x.device(), ", but got one on ", f.device());
  }
  TORCH_CHECK_VALUE(
      !b || (b->dim() == 1 && b->sym_size(0) == x.sym_size(1) && b->device() == x.device()),
      "filtered_lrelu expects a bias [", x.sym_size(1), "] on ", x.device(), ", but got shape ", b ? b->sym_sizes() : c10::SymIntArrayRef(), " on ",
      b ? b->device() : x.device());
  const auto size = result_size(x, s);
  TORCH_CHECK_VALUE(size[0] >= 1 && size[1] >= 1, "filtered_lrelu has no result: it would be ", size[0], " x ", size[1], " pixels; give more padding");
}

void check_filtered_lrelu_mask(const Tensor& mask, const Tensor& like, const std::array<c10::SymInt, 2>& result, const FilterSettings& s) {
  const auto size = mask_size(result, s);
  TORCH_CHECK_VALUE(
      mask.scalar_type() == at::kByte && mask.dim() == 4 && mask.sym_size(0) == like.sym_size(0) && mask.sym_size(1) == like.sym_size(1) &&
          mask.sym_size(2) == size[0] && mask.sym_size(3) == size[1] && mask.device() == like.device(),
      "filtered_lrelu expects the forward pass's mask, uint8 [", like.sym_size(0), ", ", like.sym_size(1), ", ", size[0], ", ", size[1], "] on ",
      like.device(), ", but got ", name_of(mask.scalar_type()), " of shape ", mask.sym_sizes(), " on ", mask.device());
}

HeldPass forward_pass(
    const Tensor& x, const std::optional<Tensor>& b, const FilterSettings& s, std::optional<double> clamp, bool with_mask) {
  check_filtered_lrelu(x, b, s);
  const at::MemoryFormat format = image_format(x);
  const auto result = result_size(x, s);
  HeldPass h = pass_of(
      x, format, forward_axis(x.size(2), result[0].expect_int(), 0, s), forward_axis(x.size(3), result[1].expect_int(), 1, s), s.up, s.down);
  set_filters(h, s.fu, s.fd);
  set_gains(h.pass, s);
  h.pass.reversed = !s.flip_filter;
  if (b) {
    h.bias = b->detach().to(accumulate_type(x.scalar_type())).contiguous();
    h.pass.bias = h.bias.const_data_ptr();
  }
  if (clamp) {
    h.pass.limit = *clamp;
  }
  if (with_mask) {
    const auto size = mask_size(result, s);
    h.mask = at::empty({x.size(0), x.size(1), size[0].expect_int(), size[1].expect_int()}, x.options().dtype(at::kByte), format);
    h.pass.mask = h.mask.mutable_data_ptr<unsigned char>();
    h.pass.use = MaskUse::Write;
  } else {
    h.mask = at::empty({0}, x.options().dtype(at::kByte));
  }
  return h;
}

HeldPass tangent_pass(const Tensor& v, const Tensor& mask, const FilterSettings& s) {
  check_filtered_lrelu(v, std::nullopt, s);
  const auto result = result_size(v, s);
  check_filtered_lrelu_mask(mask, v, result, s);
  const at::MemoryFormat format = image_format(mask);
  HeldPass h = pass_of(
      v, format, forward_axis(v.size(2), result[0].expect_int(), 0, s), forward_axis(v.size(3), result[1].expect_int(), 1, s), s.up, s.down);
  set_filters(h, s.fu, s.fd);
  set_gains(h.pass, s);
  h.pass.reversed = !s.flip_filter;
  read_mask(h, mask, format);
  return h;
}

HeldPass adjoint_pass(const Tensor& dy, const Tensor& mask, at::IntArrayRef size, const FilterSettings& s) {
  TORCH_CHECK_VALUE(dy.dim() == 4, "filtered_lrelu expects gradients [N, C, H, W], but got shape ", dy.sizes());
  TORCH_CHECK_VALUE(size.size() == 2, "filtered_lrelu expects the input's (height, width), but got ", size);
  check_filtered_lrelu_mask(mask, dy, {dy.sym_size(2), dy.sym_size(3)}, s);
  const at::MemoryFormat format = image_format(mask);
  const FilterAxis vertical = adjoint_axis(forward_axis(size[0], dy.size(2), 0, s), s.up);
  const FilterAxis horizontal = adjoint_axis(forward_axis(size[1], dy.size(3), 1, s), s.up);
  HeldPass h = pass_of(dy, format, vertical, horizontal, s.down, s.up);
  set_filters(h, s.fd, s.fu);
  set_gains(h.pass, s);
  h.pass.reversed = s.flip_filter;
  read_mask(h, mask, format);
  return h;
}

}  // namespace gan_fast
