// The gradient through a layer's epilogue on the CPU, in one pass.
#pragma once

#include "common/cpu/isa.h"
#include "convolution/winograd.h"

namespace gan_fast::modulated_convolution {

// The gradient through an epilogue, of images [N, pixels, channels] in parts of kPart pixels, or of planes [N, channels,
// pixels] in one part each: dz = dy E', and the sums of a part, [N, parts, 2, channels]: of dz; of dy y [|y| < clamp] -
// dz noise.
constexpr std::int64_t kPart = 128;
struct EpilogueGradient {
  const void *dy, *y;
  void *dz, *sums;
  std::int64_t pixels, channels;
  bool planes;
  winograd::Epilogue epilogue;
  double clamp;  // as a y of its type would be clamped to
};

}  // namespace gan_fast::modulated_convolution

namespace gan_fast {

// Range: (image, part), or planes.
GAN_FAST_CPU_KERNEL(
    modulated_epilogue_gradient, void,
    (winograd::Storage, const modulated_convolution::EpilogueGradient&, std::int64_t, std::int64_t))

}  // namespace gan_fast
