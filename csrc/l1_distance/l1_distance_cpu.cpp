#include <type_traits>

#include "common/cpu/map_reduce.h"
#include "l1_distance/l1_distance.h"

namespace gan_fast::CPU_CAPABILITY {

void l1_distance_block(int storage, Mode mode, const Segment& s, long long begin, long long end, Sums& sums) {
  map_reduce_any(storage, mode, false, s, []<class M>(M) { return L1Term<M>{}; }, false, begin, end, sums);
}

}  // namespace gan_fast::CPU_CAPABILITY
