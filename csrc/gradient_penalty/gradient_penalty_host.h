// The checks of the gradient penalty, and the rows that the kernels of every device are given.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/host.h"
#include "gradient_penalty/gradient_penalty.h"

namespace gan_fast {

// Checks everything that does not read data. Works on symbolic shapes.
void check_gradient_penalty(const Tensor& g, int64_t kind, double center);
void check_gradient_penalty_backward(const Tensor& grad, const Tensor& g, const Tensor& squared_norms);

// g as rows of memory, one a sample: row i is `inner` elements from i * stride on, in whatever order g has them.
struct Rows {
  Tensor x;  // g itself where its samples fill memory without gaps (contiguous, channels_last, a slice of a batch), else a copy
  int64_t rows, inner, stride;
};
Rows rows_of(const Tensor& g);

// A result with the strides of empty_like(g), and what a kernel writes: rows in the order of rows.x, one after the other.
struct RowsTarget {
  Tensor result, rows;
  Tensor finish() const {
    return rows.is_same(result) ? result : result.copy_(rows);
  }
};
RowsTarget target_like(const Tensor& g, const Rows& rows);

}  // namespace gan_fast
