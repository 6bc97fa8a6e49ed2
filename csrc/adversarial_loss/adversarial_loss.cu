// The adversarial terms on the card: adversarial_loss.h says what they are, common/cuda/map_reduce.h how they are summed.
//
// Kernels: adversarial_<kind>_<what>_<dtype>. Softplus is the average kind with a shift of zero: one kernel serves both.
#include "adversarial_loss/adversarial_loss.h"
#include "common/cuda/map_reduce.h"

namespace gan_fast::cuda {

using AdversarialArguments = MapReduceArguments<TermNumbers>;

template <Kind kKind>
struct MakeAdversarial {
  static constexpr bool kShifts = kKind == Kind::Average;
  // A linear launch gives the means that the average terms are shifted by.
  static constexpr bool kSegmentSums = kShifts || kKind == Kind::Linear;
  template <class S>
  using Result = typename Accumulate<S>::T;

  template <class M>
  __device__ __forceinline__ static AdversarialTerm<M, kKind> term(const AdversarialArguments& a, int k) {
    TermNumbers numbers = a.numbers[k];
    if constexpr (kShifts) numbers.shift = a.shifts ? a.shifts[a.work[k].other] : 0.0;
    return AdversarialTerm<M, kKind>(numbers);
  }
};

}  // namespace gan_fast::cuda

GAN_FAST_MAP_REDUCE(adversarial_linear, gan_fast::cuda::MakeAdversarial<gan_fast::Kind::Linear>, gan_fast::cuda::AdversarialArguments)
GAN_FAST_MAP_REDUCE(adversarial_softplus, gan_fast::cuda::MakeAdversarial<gan_fast::Kind::Average>, gan_fast::cuda::AdversarialArguments)
GAN_FAST_MAP_REDUCE(adversarial_hinge, gan_fast::cuda::MakeAdversarial<gan_fast::Kind::Hinge>, gan_fast::cuda::AdversarialArguments)
GAN_FAST_MAP_REDUCE(adversarial_square, gan_fast::cuda::MakeAdversarial<gan_fast::Kind::Square>, gan_fast::cuda::AdversarialArguments)
GAN_FAST_MAP_REDUCE(adversarial_pair, gan_fast::cuda::MakeAdversarial<gan_fast::Kind::Pair>, gan_fast::cuda::AdversarialArguments)
