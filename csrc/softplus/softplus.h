// softplus(x) = log(1 + e^(b x)) / b, and x itself where b x > threshold; its derivative is sigmoid(b x), or 1 there.
// With b = -1 and no threshold it is the logarithm of the sigmoid: log s(x) = -log(1 + e^-x).
#pragma once

#include "common/math.h"

namespace gan_fast {

template <class M>
struct SoftplusOf {
  using V = typename M::V;
  static constexpr bool kUsesY = false;
  static constexpr bool kUsesP = false;
  static constexpr bool kChecks = false;

  V beta, inverse, threshold;

  GAN_FAST_HD SoftplusOf(double b, double limit)
      : beta(M::constant(b)), inverse(M::constant(1 / b)), threshold(M::constant(limit)) {}

  GAN_FAST_HD void operator()(V x, V, V, V& value, V& derivative) const {
    const V u = beta * x;
    const Softplus<M> s(u);
    const V above = u - threshold;
    value = M::positive(above, x, s.value * inverse);
    derivative = M::positive(above, M::constant(1), s.sigmoid);
  }
};

}  // namespace gan_fast
