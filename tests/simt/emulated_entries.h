// The table through which emulated launches find kernels by name: no torch here, no emulator there.
#pragma once

#include <cstdint>

namespace emulated {

struct Launch {
  unsigned grid[3], block;
  uint64_t shared_bytes;
  int order;  // simt::Order
  const void* arguments;
};

void add(const char* kernel, void (*run)(const Launch&));

}  // namespace emulated
