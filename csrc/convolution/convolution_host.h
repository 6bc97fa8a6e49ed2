// Which gradients of convolution weights a backward pass computes.
#pragma once

#include <ATen/ATen.h>

#include <atomic>

namespace gan_fast {

// One switch for the process, because the engine runs nodes on threads of its own.
inline std::atomic<bool> convolution_weight_gradients{true};

// Whether the running backward wants the gradient of `w`, a convolution's weight, with the switch off.
//
// Where that gradient would end in kernels alone, of w's rank and spatial size, it is what the caller left out. A weight
// that is computed from something else, as styles modulate it, carries part of that one's gradient: leaving it out would
// make a wrong number, so it is computed.
bool flows_beyond_kernels(const at::Tensor& w);

}  // namespace gan_fast
