#include "gradient_penalty/gradient_penalty_host.h"

namespace gan_fast {

void check_gradient_penalty(const Tensor& g, int64_t kind, double center) {
  storage_code(g.scalar_type());
  TORCH_CHECK_VALUE(g.dim() > 0, "a gradient penalty got a gradient of shape []; expected one a sample, [N, ...]");
  TORCH_CHECK_VALUE(
      kind >= 0 && kind <= 2, "a gradient penalty got kind ", kind, "; expected 0 (square), 1 (two-sided) or 2 (one-sided)");
  TORCH_CHECK_VALUE(center >= 0, "a gradient penalty got center ", center, "; a norm is compared with it, so it must be at least 0");
}

void check_gradient_penalty_backward(const Tensor& grad, const Tensor& g, const Tensor& squared_norms) {
  const at::ScalarType type = accumulate_type(g.scalar_type());
  TORCH_CHECK_VALUE(grad.dim() == 0, "the gradient of a penalty is one number, but got shape ", grad.sym_sizes());
  TORCH_CHECK_VALUE(
      squared_norms.dim() == 1 && squared_norms.scalar_type() == type, "squared norms must be ", name_of(type),
      " of shape [N], but got ", name_of(squared_norms.scalar_type()), " of shape ", squared_norms.sym_sizes());
}

Rows rows_of(const Tensor& g) {
  const int64_t rows = g.size(0);
  const int64_t inner = rows > 0 ? g.numel() / rows : 0;
  if (rows == 0 || g.select(0, 0).is_non_overlapping_and_dense()) {
    return {g, rows, inner, g.stride(0)};
  }
  return {g.contiguous(), rows, inner, inner};
}

RowsTarget target_like(const Tensor& g, const Rows& rows) {
  const Tensor result = at::empty_like(g);
  std::vector<int64_t> packed = rows.x.strides().vec();
  packed[0] = rows.inner;
  const bool same_order = std::equal(packed.begin() + 1, packed.end(), result.strides().begin() + 1) &&
      (rows.rows == 1 || result.stride(0) == rows.inner);
  return {result, same_order ? result : at::empty_strided(g.sizes(), packed, g.options())};
}

}  // namespace gan_fast
