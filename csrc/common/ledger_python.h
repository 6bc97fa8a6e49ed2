// Adds `Ledger` to the module.
#pragma once

#include <pybind11/pybind11.h>

namespace gan_fast {

void add_ledger_bindings(pybind11::module_& module);

}  // namespace gan_fast
