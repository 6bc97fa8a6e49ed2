// Which of the three compiled variants of the CPU kernels runs, chosen by CPUID at load time.
#pragma once

#include <string>

namespace gan_fast {

enum class Isa { Default, Avx2, Avx512 };

// The variant in use: the widest that this build holds and this processor runs, or the one named by the environment
// variable GAN_FAST_CPU_CAPABILITY (default, avx2, avx512) or by set_isa.
Isa current_isa();
void set_isa(const std::string& name);
std::string isa_name(Isa isa);

// Declares one kernel in the namespaces of the variants and picks the current one:
//   GAN_FAST_CPU_KERNEL(bce_block, void, (const Segment&, ...));   bce_block_kernel()(segment, ...)
#if defined(GAN_FAST_HAVE_AVX2) && defined(GAN_FAST_HAVE_AVX512)
#define GAN_FAST_CPU_KERNEL(name, result, parameters)                                              \
  namespace DEFAULT {                                                                              \
  result name parameters;                                                                          \
  }                                                                                                \
  namespace AVX2 {                                                                                 \
  result name parameters;                                                                          \
  }                                                                                                \
  namespace AVX512 {                                                                               \
  result name parameters;                                                                          \
  }                                                                                                \
  inline auto name##_kernel() {                                                                    \
    const Isa isa = current_isa();                                                                 \
    return isa == Isa::Avx512 ? &AVX512::name : isa == Isa::Avx2 ? &AVX2::name : &DEFAULT::name;   \
  }
#else
#define GAN_FAST_CPU_KERNEL(name, result, parameters) \
  namespace DEFAULT {                                 \
  result name parameters;                             \
  }                                                   \
  inline auto name##_kernel() {                       \
    return &DEFAULT::name;                            \
  }
#endif

}  // namespace gan_fast
