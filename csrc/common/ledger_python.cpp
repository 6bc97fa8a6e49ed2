// `_C.Ledger`: what `gan_fast.penalties.critic_backward` holds of a ledger.

#include "common/ledger_python.h"

#include <pybind11/stl.h>
#include <torch/csrc/Exceptions.h>
#include <torch/csrc/utils/pybind.h>

#include "common/ledger.h"

namespace gan_fast {

namespace py = pybind11;

void add_ledger_bindings(py::module_& module) {
  py::class_<Ledger, LedgerPtr>(module, "Ledger", "Which layers of one critic step owe the gradient of their weight.")
      .def(py::init([] { return c10::make_intrusive<Ledger>(); }))
      .def(
          "attach",
          [](const LedgerPtr& self, const Tensor& images) {
            if (images.requires_grad()) {
              self->set_images(images);
            }
            Ledger::set_current(self);
          },
          "Layers run on this thread from now on belong to this ledger; `images` is the leaf whose gradient is asked.")
      .def_static(
          "detach", [] { Ledger::set_current({}); }, "Layers run on this thread from now on belong to none.")
      .def_property(
          "first", [](const Ledger& self) { return self.first.load(); },
          [](Ledger& self, bool value) { self.first = value; }, "Whether the first backward is running.")
      .def_property_readonly(
          "half", [](const Ledger& self) { return self.half.load(); }, "Whether a layer ran in float16.")
      .def_property_readonly("deferred", [](const Ledger& self) { return self.deferred.load(); })
      .def_property_readonly("swept", [](const Ledger& self) { return self.swept.load(); })
      .def_property_readonly("reentered", [](const Ledger& self) { return self.reentered.load(); })
      .def_property_readonly("has_computed_weights", &Ledger::has_computed_weights)
      .def(
          "sweep", torch::wrap_pybind_function_no_gil([](Ledger& self) { return self.sweep(); }),
          "Pays what is still owed: a list of weights and their gradients.");
}

}  // namespace gan_fast
