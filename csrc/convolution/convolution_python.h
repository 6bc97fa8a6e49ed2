// Adds `set_convolution_weight_gradients` to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace gan_fast {

void add_convolution_bindings(pybind11::module_& module);

}  // namespace gan_fast
