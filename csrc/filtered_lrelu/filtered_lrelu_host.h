// The checks of filtered_lrelu, and the passes that the kernels of every device are given.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "common/host.h"
#include "filtered_lrelu/filtered_lrelu.h"

namespace gan_fast {

// The arguments that the forward pass and its derivatives share.
struct FilterSettings {
  Tensor fu, fd;  // undefined: the identity
  int64_t up, down;
  std::vector<int64_t> padding;  // x0, x1, y0, y1
  double gain, slope;
  bool flip_filter;
};

// The size (height, width) of the result of x, of the mask [N, C, rows, columns], from sizes that may be symbolic.
std::array<c10::SymInt, 2> result_size(const Tensor& x, const FilterSettings& s);
std::array<c10::SymInt, 2> mask_size(const std::array<c10::SymInt, 2>& result, const FilterSettings& s);

void check_filtered_lrelu(const Tensor& x, const std::optional<Tensor>& b, const FilterSettings& s);
void check_filtered_lrelu_mask(const Tensor& mask, const Tensor& like, const std::array<c10::SymInt, 2>& result, const FilterSettings& s);

// Contiguous or channels_last, whichever x is nearer to.
inline at::MemoryFormat image_format(const Tensor& x) {
  return x.suggest_memory_format() == at::MemoryFormat::ChannelsLast ? at::MemoryFormat::ChannelsLast : at::MemoryFormat::Contiguous;
}

// A pass with everything it points to.
struct HeldPass {
  FilterPass pass;
  Tensor x, y, bias, mask, hu, hd;
};

HeldPass forward_pass(
    const Tensor& x, const std::optional<Tensor>& b, const FilterSettings& s, std::optional<double> clamp, bool with_mask);
HeldPass tangent_pass(const Tensor& v, const Tensor& mask, const FilterSettings& s);
HeldPass adjoint_pass(const Tensor& dy, const Tensor& mask, at::IntArrayRef size, const FilterSettings& s);

}  // namespace gan_fast
