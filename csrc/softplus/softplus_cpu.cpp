#include <type_traits>

#include "common/cpu/map_reduce.h"
#include "softplus/softplus.h"

namespace gan_fast::CPU_CAPABILITY {

void softplus_block(
    int storage, double beta, double threshold, Mode mode, const Segment& s, long long begin, long long end,
    Sums& sums) {
  map_reduce_any(
      storage, mode, s.c != nullptr, s, [=]<class M>(M) { return SoftplusOf<M>(beta, threshold); }, false, begin, end,
      sums);
}

}  // namespace gan_fast::CPU_CAPABILITY
