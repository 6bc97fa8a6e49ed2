#include "common/cpu/isa.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cstdlib>

namespace gan_fast {
namespace {

bool runs(Isa isa) {
  if (isa == Isa::Default) {
    return true;
  }
#if defined(GAN_FAST_HAVE_AVX2) && defined(GAN_FAST_HAVE_AVX512)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  return isa == Isa::Avx2 ? avx2
                          : avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
          __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
#else
  return false;
#endif
}

Isa parse(const std::string& name) {
  for (Isa isa : {Isa::Default, Isa::Avx2, Isa::Avx512}) {
    if (name == isa_name(isa)) {
      TORCH_CHECK_VALUE(
          runs(isa), "CPU capability ", name, " was asked for, but this build or this processor does not have it");
      return isa;
    }
  }
  TORCH_CHECK_VALUE(false, "CPU capability is ", name, "; expected one of default, avx2, avx512");
}

Isa choose() {
  if (const char* name = std::getenv("GAN_FAST_CPU_CAPABILITY"); name != nullptr && *name != '\0') {
    return parse(name);
  }
  return runs(Isa::Avx512) ? Isa::Avx512 : runs(Isa::Avx2) ? Isa::Avx2 : Isa::Default;
}

std::atomic<Isa>& current() {
  static std::atomic<Isa> isa{choose()};
  return isa;
}

}  // namespace

Isa current_isa() {
  return current().load(std::memory_order_relaxed);
}

void set_isa(const std::string& name) {
  current().store(parse(name), std::memory_order_relaxed);
}

std::string isa_name(Isa isa) {
  return isa == Isa::Avx512 ? "avx512" : isa == Isa::Avx2 ? "avx2" : "default";
}

}  // namespace gan_fast
