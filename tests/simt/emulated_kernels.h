// Puts the kernels of a .cu file into the table: EMULATED_KERNEL(name) for each.
#pragma once

#include "emulated_entries.h"
#include "simt.h"

namespace emulated {

template <class P>
void run(void (*kernel)(P), const Launch& l) {
  simt::launch(
      kernel, dim3{l.grid[0], l.grid[1], l.grid[2]}, dim3{l.block, 1, 1}, l.shared_bytes, static_cast<simt::Order>(l.order),
      *static_cast<const P*>(l.arguments));
}

}  // namespace emulated

#define EMULATED_KERNEL(name) \
  static const bool emulated_##name = (emulated::add(#name, [](const emulated::Launch& l) { emulated::run(name, l); }), true)
