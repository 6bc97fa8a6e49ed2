// `_C.set_convolution_weight_gradients`: what `conv2d_gradfix.no_weight_gradients` of NVIDIA-style code turns.

#include "convolution/convolution_python.h"

#include "convolution/convolution_host.h"

namespace gan_fast {

void add_convolution_bindings(pybind11::module_& module) {
  module.def(
      "set_convolution_weight_gradients", [](bool wanted) { convolution_weight_gradients = wanted; },
      pybind11::arg("wanted"),
      "Whether backward passes from now on, of any graph, compute the gradients of convolution weights.");
}

}  // namespace gan_fast
