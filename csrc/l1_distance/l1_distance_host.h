// The checks of the L1 distance, and the segments that the kernels of every device are given.
#pragma once

#include <ATen/core/Tensor.h>

#include "common/host.h"
#include "l1_distance/l1_distance.h"

namespace gan_fast {

// Checks everything that does not read data. Works on symbolic shapes.
void check_l1(TensorList a, TensorList b);

// One segment a pair; `kept` owns the memory of the inputs, `gradients` (one a pair, or none) that of the results.
struct L1Plan {
  std::vector<Segment> segments;
  std::vector<Tensor> kept;
  std::vector<Tensor> gradients;
};
L1Plan plan_l1(TensorList a, TensorList b, bool with_gradients, double factor);

}  // namespace gan_fast
