// The adversarial terms on the card: adversarial_loss.h says what they are, common/cuda/map_reduce.h how they are summed.
//
// Kernels: adversarial_<what>_<kind>_<dtype>, what = reduce | reduce_grad | map.
#include "adversarial_loss/adversarial_loss.h"
#include "common/cuda/map_reduce.h"

namespace gan_fast::cuda {

using AdversarialArguments = MapReduceArguments<TermNumbers>;

template <Kind kKind>
struct MakeTerm {
  static constexpr bool kShifts = kKind == Kind::Average;
  // A linear launch gives the means.
  static constexpr bool kSegmentSums = kShifts || kKind == Kind::Linear;

  template <class M>
  __device__ __forceinline__ static AdversarialTerm<M, kKind> term(const AdversarialArguments& a, int k) {
    TermNumbers numbers = a.numbers[k];
    if constexpr (kShifts) numbers.shift = a.shifts[a.work[k].other];
    return AdversarialTerm<M, kKind>(numbers);
  }
};

}  // namespace gan_fast::cuda

#define ADVERSARIAL_KERNELS(kind, kKind, dtype, S)                                                                       \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads)                                                 \
      adversarial_reduce_##kind##_##dtype(const __grid_constant__ gan_fast::cuda::AdversarialArguments a) {              \
    __shared__ gan_fast::cuda::ReduceScratch scratch;                                                                    \
    gan_fast::cuda::reduce<S, gan_fast::cuda::MakeTerm<gan_fast::Kind::kKind>, false>(a, scratch);                       \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads)                                                 \
      adversarial_reduce_grad_##kind##_##dtype(const __grid_constant__ gan_fast::cuda::AdversarialArguments a) {         \
    __shared__ gan_fast::cuda::ReduceScratch scratch;                                                                    \
    gan_fast::cuda::reduce<S, gan_fast::cuda::MakeTerm<gan_fast::Kind::kKind>, true>(a, scratch);                        \
  }                                                                                                                      \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads)                                                 \
      adversarial_map_##kind##_##dtype(const __grid_constant__ gan_fast::cuda::AdversarialArguments a) {                 \
    gan_fast::cuda::map<S, gan_fast::cuda::MakeTerm<gan_fast::Kind::kKind>>(a);                                          \
  }

#define ADVERSARIAL_DTYPES(kind, kKind)                            \
  ADVERSARIAL_KERNELS(kind, kKind, f32, float)                     \
  ADVERSARIAL_KERNELS(kind, kKind, f64, double)                    \
  ADVERSARIAL_KERNELS(kind, kKind, bf16, gan_fast::cuda::BFloat16) \
  ADVERSARIAL_KERNELS(kind, kKind, f16, gan_fast::cuda::Half)

ADVERSARIAL_DTYPES(linear, Linear)
ADVERSARIAL_DTYPES(softplus, Softplus)
ADVERSARIAL_DTYPES(hinge, Hinge)
ADVERSARIAL_DTYPES(square, Square)
ADVERSARIAL_DTYPES(pair, Pair)
ADVERSARIAL_DTYPES(average, Average)
