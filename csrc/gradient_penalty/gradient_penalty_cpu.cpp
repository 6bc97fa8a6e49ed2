#include <type_traits>

#include "common/cpu/map_reduce.h"
#include "gradient_penalty/gradient_penalty.h"

namespace gan_fast::CPU_CAPABILITY {

void gradient_penalty_block(int storage, Mode mode, const Segment& row, long long begin, long long end, Sums& sums) {
  map_reduce_any(storage, mode, false, row, []<class M>(M) { return SquareTerm<M>{}; }, false, begin, end, sums);
}

}  // namespace gan_fast::CPU_CAPABILITY
