// Included before an op's host code: its CUDA implementation is registered as the CPU's, in a namespace of its own, so that a test calls
// the very host code and the very kernels with CPU tensors. Everything else the file registers is left out.
#pragma once

#include "emulated_torch.h"

#include "common/cpu/isa.h"

#undef TORCH_LIBRARY_FRAGMENT
#undef TORCH_LIBRARY_IMPL
#undef GAN_FAST_CPU_KERNEL

#define EMULATED_NAME(a, b) EMULATED_NAME_(a, b)
#define EMULATED_NAME_(a, b) a##b
#define EMULATED_DROPPED(m) [[maybe_unused]] static void EMULATED_NAME(dropped_, __LINE__)(torch::Library & m)

#define TORCH_LIBRARY_FRAGMENT(ns, m) EMULATED_DROPPED(m)
#define TORCH_LIBRARY_IMPL(ns, key, m) EMULATED_##key(m)
#define EMULATED_CUDA(m) EMULATED_CUDA_(m, C10_UID)
#define EMULATED_CUDA_(m, uid) _TORCH_LIBRARY_IMPL(gan_fast_simt, CPU, m, uid)
#define EMULATED_CPU(m) EMULATED_DROPPED(m)
#define EMULATED_Meta(m) EMULATED_DROPPED(m)
#define EMULATED_Autograd(m) EMULATED_DROPPED(m)
#define EMULATED_AutocastCPU(m) EMULATED_DROPPED(m)
#define EMULATED_AutocastCUDA(m) EMULATED_DROPPED(m)

#define GAN_FAST_CPU_KERNEL(name, returned, parameters)       \
  [[maybe_unused]] static auto name##_kernel() {              \
    return static_cast<returned(*) parameters>(nullptr);      \
  }
