// The numbers of the softplus kernels, read by host and device.
#pragma once

namespace gan_fast::cuda {

struct SoftplusNumbers {
  double beta = 1, threshold = 0;
};

}  // namespace gan_fast::cuda
