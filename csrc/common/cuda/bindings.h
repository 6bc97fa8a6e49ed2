// What Python sees of the CUDA side: gan_fast._C.cuda_info() and gan_fast._C.set_nvrtc_compiler().
#pragma once

#include <pybind11/pybind11.h>

namespace gan_fast::cuda {

void add_bindings(pybind11::module_& module);

}  // namespace gan_fast::cuda
