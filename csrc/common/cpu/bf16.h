// What the processor has for bfloat16, beyond the instruction sets of `isa.h`.
#pragma once

#if (defined(__x86_64__) || defined(__i386__)) && (defined(__clang__) || (defined(__GNUC__) && __GNUC__ >= 10))
#define GAN_FAST_HAS_BF16_INTRINSICS 1
#include <cpuid.h>
#endif

namespace gan_fast {

struct Bf16Support {
  bool products;     // AVX512_BF16: vdpbf16ps, sums of pairs; whoever asks has made sure of AVX-512
  bool matrix_unit;  // AMX-BF16
};

// static: the files that include this are compiled for different processors.
static inline Bf16Support bf16_support() {
#ifdef GAN_FAST_HAS_BF16_INTRINSICS
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool known = __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0;
  const bool unit = known && (d >> 22 & 1) != 0, more = known && a >= 1;
  return {more && __get_cpuid_count(7, 1, &a, &b, &c, &d) != 0 && (a >> 5 & 1) != 0, unit};
#else
  return {false, false};
#endif
}

}  // namespace gan_fast
