// The L1 distance on the card: l1_distance.h says what it is, common/cuda/map_reduce.h how it is summed.
//
// Kernels: l1_<what>_<dtype>.
#include "common/cuda/map_reduce.h"
#include "l1_distance/l1_distance.h"

namespace gan_fast::cuda {

using L1Arguments = MapReduceArguments<NoNumbers>;

struct MakeL1 {
  static constexpr bool kShifts = false;
  static constexpr bool kSegmentSums = false;
  template <class S>
  using Result = typename Accumulate<S>::T;

  template <class M>
  __device__ __forceinline__ static L1Term<M> term(const L1Arguments&, int) {
    return {};
  }
};

}  // namespace gan_fast::cuda

GAN_FAST_MAP_REDUCE(l1, gan_fast::cuda::MakeL1, gan_fast::cuda::L1Arguments)
