// The device code the build embedded: one entry per op, each with its source (for NVRTC) and, where nvcc was found, a fatbin.
// The build writes the table; see gan_fast's CMakeLists.txt.
#pragma once

#include <cstddef>

namespace gan_fast::cuda {

struct EmbeddedKernel {
  const char* name;             // the op, as in csrc/<op>/<op>.cu
  const unsigned char* fatbin;  // null without nvcc
  size_t fatbin_size;
  const char* source;  // self-contained: every quoted include already pasted in
};

extern const EmbeddedKernel embedded_kernels[];
extern const int embedded_kernel_count;
extern const char* const embedded_archs;  // "80;90;100;120", "" without nvcc

}  // namespace gan_fast::cuda
