// Binary cross entropy of one prediction x with target t, as PyTorch defines it:
//
//   logits         l = (1 - t) x + (1 + (q - 1) t) softplus(-x)     q the weight of positive targets, 1 by default
//   probabilities  l = -t max(log x, -100) - (1 - t) max(log(1 - x), -100)
//
// and dl/dx:
//
//   logits         (1 - t) s(x) - q t s(-x)                         s the sigmoid: no cancellation at either end
//   probabilities  (x - t) / max(x (1 - x), 1e-12)
#pragma once

#include "common/math.h"

namespace gan_fast {

template <class M>
struct BceOfLogits {
  using V = typename M::V;
  static constexpr bool kUsesY = true;
  static constexpr bool kUsesP = true;
  static constexpr bool kChecks = false;

  GAN_FAST_HD void operator()(V x, V t, V q, V& value, V& derivative) const {
    const V one = M::constant(1);
    const Softplus<M> s(M::constant(0) - x);
    const V negative = one - t;
    value = M::fma(M::fma(q - one, t, one), s.value, negative * x);
    derivative = negative * s.sigmoid_of_minus - q * t * s.sigmoid;
  }
};

// torch's floor is this single-precision number in every precision
constexpr double kFloor = 1e-12f;

template <class M>
struct BceOfProbabilities {
  using V = typename M::V;
  static constexpr bool kUsesY = true;
  static constexpr bool kUsesP = false;
  static constexpr bool kChecks = true;

  GAN_FAST_HD void operator()(V x, V t, V, V& value, V& derivative) const {
    const V one = M::constant(1), floor = M::constant(-100), zero = M::constant(0);
    const V log_x = M::maximum(M::log(x), floor);
    const V log_rest = M::maximum(M::log1p(zero - x), floor);
    value = (t - one) * log_rest - t * log_x;
    derivative = (x - t) / M::maximum((one - x) * x, M::constant(kFloor));
  }

  // a mask: prediction and target inside [0, 1]; false for NaN
  GAN_FAST_HD static auto valid(V x, V t) {
    const V zero = M::constant(0), one = M::constant(1);
    return (x >= zero) & (x <= one) & (t >= zero) & (t <= one);
  }
};

}  // namespace gan_fast
