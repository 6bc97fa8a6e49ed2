// Binary cross entropy on the card: binary_cross_entropy.h says what it is, common/cuda/map_reduce.h how it is summed.
//
// Kernels: bce_logits_<what>_<dtype>, bce_probabilities_<what>_<dtype>.
#include "binary_cross_entropy/binary_cross_entropy.h"
#include "common/cuda/map_reduce.h"

namespace gan_fast::cuda {

using BceArguments = MapReduceArguments<NoNumbers>;

template <template <class> class Term>
struct MakeBce {
  static constexpr bool kShifts = false;
  static constexpr bool kSegmentSums = false;
  // as torch's: the loss has the dtype of its input
  template <class S>
  using Result = S;

  template <class M>
  __device__ __forceinline__ static Term<M> term(const BceArguments&, int) {
    return {};
  }
};

}  // namespace gan_fast::cuda

GAN_FAST_MAP_REDUCE(bce_logits, gan_fast::cuda::MakeBce<gan_fast::BceOfLogits>, gan_fast::cuda::BceArguments)
GAN_FAST_MAP_REDUCE(bce_probabilities, gan_fast::cuda::MakeBce<gan_fast::BceOfProbabilities>, gan_fast::cuda::BceArguments)
