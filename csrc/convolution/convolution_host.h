// Whether backward passes compute the gradients of convolution weights: one switch for the process, because the engine
// runs nodes on threads of its own.
#pragma once

#include <atomic>

namespace gan_fast {

inline std::atomic<bool> convolution_weight_gradients{true};

}  // namespace gan_fast
