// `gan_fast._C`: loading it registers the ops with the dispatcher; the functions below describe the build.
#include <pybind11/pybind11.h>

#include "adversarial_loss/adversarial_loss_python.h"
#include "common/cpu/isa.h"
#include "common/cuda/bindings.h"
#include "common/ledger_python.h"
#include "convolution/convolution_python.h"

PYBIND11_MODULE(_C, m) {
  m.doc() = "gan_fast's compiled kernels";
  m.def(
      "cpu_capability", [] { return gan_fast::isa_name(gan_fast::current_isa()); },
      "The instruction set the CPU kernels run on: default, avx2 or avx512.");
  m.def(
      "set_cpu_capability", &gan_fast::set_isa, pybind11::arg("name"),
      "Run the CPU kernels on this instruction set from now on.");
  gan_fast::add_adversarial_bindings(m);
  gan_fast::add_convolution_bindings(m);
  gan_fast::add_ledger_bindings(m);
  gan_fast::cuda::add_bindings(m);
}
