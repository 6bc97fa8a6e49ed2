// What the ops of modulated convolution ask of their arguments, shapes that are traced among them.
#pragma once

#include <ATen/ATen.h>

#include <initializer_list>
#include <optional>

#include "common/host.h"

namespace gan_fast::modulated_convolution {

using OptionalTensor = std::optional<Tensor>;
using Sizes = std::vector<c10::SymInt>;

// Where a tracer does not know, it may.
inline bool may_have_sizes(const Tensor& t, const Sizes& sizes) {
  if (t.dim() != static_cast<int64_t>(sizes.size())) {
    return false;
  }
  for (size_t i = 0; i < sizes.size(); ++i) {
    if (TORCH_GUARD_OR_FALSE(t.sym_size(i).sym_ne(sizes[i]))) {
      return false;
    }
  }
  return true;
}

inline void check_sizes(const char* name, const OptionalTensor& t, std::initializer_list<Sizes> allowed) {
  if (!t.has_value() || !t->defined()) {
    return;
  }
  storage_code(t->scalar_type());  // raises where it is no floating dtype
  for (const Sizes& sizes : allowed) {
    if (may_have_sizes(*t, sizes)) {
      return;
    }
  }
  TORCH_CHECK_VALUE(
      false, "modulated_convolution got ", name, " of shape ", t->sym_sizes(), "; expected ",
      c10::SymIntArrayRef(*allowed.begin()));
}

// x [N, I, H, W], w [O, I, k, k] of x's dtype or of its sums'.
inline void check_pair(const Tensor& x, const Tensor& w, int64_t padding) {
  TORCH_CHECK_VALUE(
      x.dim() == 4 && w.dim() == 4, "modulated_convolution got x of shape ", x.sym_sizes(), " and w of shape ",
      w.sym_sizes(), "; expected [N, I, H, W] and [O, I, k, k]");
  storage_code(x.scalar_type());
  TORCH_CHECK_TYPE(
      w.scalar_type() == x.scalar_type() || w.scalar_type() == accumulate_type(x.scalar_type()),
      "modulated_convolution got x of ", name_of(x.scalar_type()), " and w of ", name_of(w.scalar_type()),
      "; expected w of that dtype or of ", name_of(accumulate_type(x.scalar_type())));
  TORCH_CHECK_VALUE(
      x.sym_size(1) == w.sym_size(1) && w.sym_size(2) == w.sym_size(3), "modulated_convolution got w of shape ",
      w.sym_sizes(), " for x of shape ", x.sym_sizes(), "; expected [O, I, k, k]");
  TORCH_CHECK_VALUE(
      padding >= 0 && w.sym_size(2) > padding, "modulated_convolution got padding ", padding, " for a kernel of size ",
      w.sym_size(2), "; expected 0 to size - 1");
}

inline void check_epilogue(int64_t act, double gain) {
  TORCH_CHECK_VALUE(
      act >= 0 && act <= 2, "modulated_convolution got activation number ", act,
      "; it fuses 0 (linear), 1 (relu) and 2 (lrelu)");
  TORCH_CHECK_VALUE(gain > 0, "modulated_convolution got gain ", gain, "; expected a positive one");
}

inline void check_forward(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, int64_t act, double gain) {
  check_pair(x, w, padding);
  check_epilogue(act, gain);
  const c10::SymInt n = x.sym_size(0), grown = 2 * padding + 1 - w.sym_size(2);
  const c10::SymInt height = x.sym_size(2) + grown, width = x.sym_size(3) + grown;
  check_sizes("s", s, {{n, w.sym_size(1)}});
  check_sizes("d", d, {{n, w.sym_size(0)}});
  check_sizes("noise", noise, {{n, 1, height, width}, {1, 1, height, width}});
  check_sizes("bias", bias, {{w.sym_size(0)}});
}

// For dz of a y that x and w gave.
inline void check_input_gradient(
    const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& x,
    int64_t padding) {
  check_pair(dz, w.dim() == 4 ? w.transpose(0, 1) : w, padding);
  const c10::SymInt n = dz.sym_size(0), grown = w.sym_size(2) - 1 - 2 * padding;
  check_sizes("s", s, {{n, w.sym_size(1)}});
  check_sizes("d", d, {{n, w.sym_size(0)}});
  check_sizes("x", x, {{n, w.sym_size(1), dz.sym_size(2) + grown, dz.sym_size(3) + grown}});
}

inline void check_weight_gradient(
    const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d, int64_t size,
    int64_t padding) {
  storage_code(x.scalar_type());
  TORCH_CHECK_VALUE(
      x.dim() == 4 && padding >= 0 && padding < size, "modulated_convolution got x of shape ", x.sym_sizes(),
      ", padding ", padding, " and a kernel of size ", size, "; expected [N, I, H, W] and a padding of 0 to size - 1");
  const int64_t grown = 2 * padding + 1 - size;
  check_sizes("dz", dz, {{x.sym_size(0), dz.dim() == 4 ? dz.sym_size(1) : 0, x.sym_size(2) + grown, x.sym_size(3) + grown}});
  check_sizes("s", s, {{x.sym_size(0), x.sym_size(1)}});
  check_sizes("d", d, {{x.sym_size(0), dz.sym_size(1)}});
}

inline void check_epilogue_gradient(
    const Tensor& dy, const Tensor& y, const OptionalTensor& noise, int64_t act, double gain) {
  check_epilogue(act, gain);
  storage_code(y.scalar_type());
  TORCH_CHECK_VALUE(y.dim() == 4, "modulated_convolution got y of shape ", y.sym_sizes(), "; expected [N, O, H, W]");
  const c10::SymInt n = y.sym_size(0), height = y.sym_size(2), width = y.sym_size(3);
  check_sizes("dy", dy, {{n, y.sym_size(1), height, width}});
  check_sizes("noise", noise, {{n, 1, height, width}, {1, 1, height, width}});
}

}  // namespace gan_fast::modulated_convolution
