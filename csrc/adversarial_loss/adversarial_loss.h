// The elementwise terms of the adversarial losses, for one logit x (or a pair x = real, y = fake):
//
//   term(x) = scale phi(x) + slope x
//   linear   phi = x                          softplus  phi = softplus(p x)      average  phi = softplus(p (x - shift))
//   hinge    phi = max(0, 1 + p x)            square    phi = (x - p)^2 / 2      pair     phi = softplus(p (x - y))
//
// (p, scale, slope) is given per side; `shift` is the mean of the other side's logits. Which loss is which set of numbers
// is data in gan_fast/losses/adversarial.py. Derivatives are for x; a pair's for y is its negative.
#pragma once

#include "common/math.h"

namespace gan_fast {

enum class Kind : int { Linear = 0, Softplus = 1, Hinge = 2, Square = 3, Pair = 4, Average = 5 };

struct TermNumbers {
  double p = 0, scale = 0, slope = 0, shift = 0;
};

template <class M, Kind kKind>
struct AdversarialTerm {
  using V = typename M::V;
  static constexpr bool kUsesY = kKind == Kind::Pair;
  static constexpr bool kUsesP = false;
  static constexpr bool kChecks = false;

  V p, scale, slope, shift;
  bool sloped;  // an infinite logit times a slope of zero would be NaN

  GAN_FAST_HD explicit AdversarialTerm(const TermNumbers& t)
      : p(M::constant(t.p)),
        scale(M::constant(t.scale)),
        slope(M::constant(t.slope)),
        shift(M::constant(t.shift)),
        sloped(t.slope != 0) {}

  GAN_FAST_HD void operator()(V x, [[maybe_unused]] V y, V, V& value, V& derivative) const {
    if constexpr (kKind == Kind::Linear) {
      value = scale * x;
      derivative = scale;
    } else if constexpr (kKind == Kind::Hinge) {
      const V zero = M::constant(0);
      const V m = M::fma(p, x, M::constant(1));
      value = scale * M::maximum(m, zero);
      // relu's rule: 0 at the corner, and not where the logit is NaN
      derivative = M::not_positive(m, zero, scale * p);
    } else if constexpr (kKind == Kind::Square) {
      const V d = x - p;
      value = scale * M::constant(0.5) * d * d;
      derivative = scale * d;
    } else {
      V u = x;
      if constexpr (kKind == Kind::Pair) {
        u = x - y;
      } else if constexpr (kKind == Kind::Average) {
        u = x - shift;
      }
      const Softplus<M> s(p * u);
      value = scale * s.value;
      derivative = scale * p * s.sigmoid;
    }
    if (sloped) {
      value = M::fma(slope, x, value);
      derivative = derivative + slope;
    }
  }
};

}  // namespace gan_fast
