// softplus and log-sigmoid on the card: softplus.h says what they are, common/cuda/map_reduce.h how elements are walked.
//
// Kernels: softplus_map_<dtype>.
#include "common/cuda/map_reduce.h"
#include "softplus/softplus.h"
#include "softplus/softplus_arguments.h"

namespace gan_fast::cuda {

using SoftplusArguments = MapReduceArguments<SoftplusNumbers>;

struct MakeSoftplus {
  static constexpr bool kShifts = false;
  static constexpr bool kSegmentSums = false;
  template <class S>
  using Result = S;

  template <class M>
  __device__ __forceinline__ static SoftplusOf<M> term(const SoftplusArguments& a, int k) {
    return {a.numbers[k].beta, a.numbers[k].threshold};
  }
};

}  // namespace gan_fast::cuda

GAN_FAST_MAP_KERNEL(softplus, f32, float, gan_fast::cuda::MakeSoftplus, gan_fast::cuda::SoftplusArguments)
GAN_FAST_MAP_KERNEL(softplus, f64, double, gan_fast::cuda::MakeSoftplus, gan_fast::cuda::SoftplusArguments)
GAN_FAST_MAP_KERNEL(softplus, bf16, gan_fast::cuda::BFloat16, gan_fast::cuda::MakeSoftplus, gan_fast::cuda::SoftplusArguments)
GAN_FAST_MAP_KERNEL(softplus, f16, gan_fast::cuda::Half, gan_fast::cuda::MakeSoftplus, gan_fast::cuda::SoftplusArguments)
