// Device-side tools every kernel shares: 16-byte loads and stores, 16-bit floats, reductions whose order is fixed.
//
// Included by .cu files only, and by nothing but them: it must compile under nvcc, under NVRTC (no system header) and under the SIMT
// emulator in tests/simt, which declares what CUDA declares and defines GAN_FAST_SIMT.
#pragma once

#if defined(GAN_FAST_SIMT)
#define GAN_FAST_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(simt::dynamic_shared())
#else
#define GAN_FAST_DYNAMIC_SHARED(type, name)                        \
  extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

namespace gan_fast::cuda {

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;

}  // namespace gan_fast::cuda
