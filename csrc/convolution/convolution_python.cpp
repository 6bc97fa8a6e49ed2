// `_C.set_convolution_weight_gradients`: what `conv2d_gradfix.no_weight_gradients` of NVIDIA-style code turns.
// `_C.set_winograd`: who multiplies.

#include "convolution/convolution_python.h"

#include <pybind11/stl.h>

#include "convolution/convolution_host.h"
#include "convolution/winograd_host.h"

namespace gan_fast {

void add_convolution_bindings(pybind11::module_& module) {
  module.def(
      "set_convolution_weight_gradients", [](bool wanted) { convolution_weight_gradients = wanted; },
      pybind11::arg("wanted"),
      "Whether backward passes from now on, of any graph, compute the gradients of convolution weights.");
  module.def(
      "set_winograd", &set_winograd, pybind11::arg("mode"),
      "Which 3x3 convolutions of the CPU run by Winograd's kernels from now on: auto (as measured), always, never.");
  module.def("winograd_mode", &winograd_mode, "What set_winograd or GAN_FAST_WINOGRAD said last.");
  module.def(
      "winograd_layer_limits", &winograd_layer_limits, pybind11::arg("narrow"),
      pybind11::arg("last"),
      "Least channels, tiles and pixels of a tile of modulated convolutions that run by Winograd's kernels; or None.");
  winograd_mode();  // a wrong GAN_FAST_WINOGRAD is refused now, and not by the first convolution
}

}  // namespace gan_fast
