// The checks of the binary cross entropy ops, and the segment that the kernels of every device are given.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "binary_cross_entropy/binary_cross_entropy.h"
#include "common/host.h"

namespace gan_fast {

using Optional = std::optional<Tensor>;

// Checks everything that does not read data. Works on symbolic shapes.
void check_bce(const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight);

// `kept` owns the memory the segment points to; x is the input, dense. Outputs and the factor are left to the caller.
struct BcePlan {
  Segment segment{};
  std::vector<Tensor> kept;
  Tensor x;
};
BcePlan plan_bce(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight,
    const Tensor* cotangent);

}  // namespace gan_fast
