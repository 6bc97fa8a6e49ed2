// |x - y| of one pair, and its derivative for x: the sign of x - y, 0 at a tie, NaN for NaN.
#pragma once

#include "common/math.h"

namespace gan_fast {

template <class M>
struct L1Term {
  using V = typename M::V;
  static constexpr bool kUsesY = true;
  static constexpr bool kUsesP = false;
  static constexpr bool kChecks = false;

  GAN_FAST_HD void operator()(V x, V y, V, V& value, V& derivative) const {
    const V zero = M::constant(0), one = M::constant(1);
    const V d = x - y;
    value = M::abs(d);
    // d itself is left where it is 0 or NaN
    derivative = M::positive(d, one, M::positive(zero - d, zero - one, d));
  }
};

}  // namespace gan_fast
