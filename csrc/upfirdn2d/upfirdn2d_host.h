// Checks, results and memory layouts of upfirdn2d, shared by the host code of every device.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <vector>

#include "common/host.h"
#include "upfirdn2d/upfirdn2d.h"

namespace gan_fast {

using OptionalTensor = std::optional<Tensor>;

// Checks everything that does not read data. Works on symbolic shapes.
void check_upfirdn2d(
    const Tensor& x, const OptionalTensor& f, at::IntArrayRef up, at::IntArrayRef down, c10::SymIntArrayRef before,
    c10::SymIntArrayRef size);

// An uninitialised result: channels_last where x lies so, else contiguous.
Tensor empty_result(const Tensor& x, c10::SymIntArrayRef size);

// (width, height) of a filter
std::array<c10::SymInt, 2> filter_size(const OptionalTensor& f);

// Checks the numbers that kernels rely on.
void check_result(const OptionalTensor& f, at::IntArrayRef before, at::IntArrayRef size);

// Images as rows of memory.
struct ImageRows {
  Tensor x;  // x itself where its rows are without gaps, else a copy
  bool channels_last;
  int64_t sample, channel, row;  // strides in elements
};
ImageRows image_rows(const Tensor& x);

}  // namespace gan_fast
