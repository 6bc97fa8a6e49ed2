#include <type_traits>

#include "binary_cross_entropy/binary_cross_entropy.h"
#include "common/cpu/map_reduce.h"

namespace gan_fast::CPU_CAPABILITY {

void binary_cross_entropy_block(
    int storage, bool logits, Mode mode, const Segment& s, long long begin, long long end, Sums& sums) {
  const bool full = s.w != nullptr || s.c != nullptr;
  if (logits) {
    map_reduce_any(
        storage, mode, full, s, []<class M>(M) { return BceOfLogits<M>{}; }, false, begin, end, sums);
  } else {
    map_reduce_any(
        storage, mode, full, s, []<class M>(M) { return BceOfProbabilities<M>{}; }, false, begin, end, sums);
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
