// y = clamp(gain act(u)), u = x scale + noise + b: the activations and their derivatives.
//
//              act(u)                        act'(u)            act''(u)
//   linear     u                             1                  0
//   relu       max(u, 0)                     u > 0              0
//   lrelu      u > 0 ? u : alpha u           u > 0 ? 1 : alpha  0
//   tanh       h = tanh u                    1 - h^2            -2 h (1 - h^2)
//   sigmoid    s = 1 / (1 + e^-u), m = 1 - s   s m              s m (m - s)
//   elu        u > 0 ? u : e^u - 1           u > 0 ? 1 : e^u    u > 0 ? 0 : e^u
//   selu       L (u > 0 ? u : A (e^u - 1))   L (1 : A e^u)      L (0 : A e^u)
//   softplus   log(1 + e^u)                  s                  s m
//   swish      u s                           s (1 + u m)        s m (2 + u (m - s))
//
// The derivative of the piecewise linear three is read from the sign of y, so that x need not be kept for it; that of the
// others from u. Where |y| has reached the clamp it is 0.
//
// With D1 and D2 the derivatives of y in u, the passes over memory are, for the elements and for the sums that become
// gradients of parameters (db and dnoise sum the first, dscale the second):
//
//   forward           y
//   backward          g = dy D1;  dx = g scale;                                            sums of g, of g x
//   double backward   t = tx scale + x tscale + tnoise + tb, what cotangents of the backward's results move u by;
//                     q = dy D2 t;  ddy = D1 t;  dx = q scale + g tscale;                  sums of q, of q x + g tx
//
// A policy M here has, beside the members of common/math.h: tanh, expm1 and limit(x, low, high), which keeps NaN.
#pragma once

#include "common/math.h"

namespace gan_fast {

enum class Activation : int { Linear = 0, Relu, Lrelu, Tanh, Sigmoid, Elu, Selu, Softplus, Swish };

struct BiasActNumbers {
  int act;
  double alpha, gain;
  double clamp;  // negative: none
};

// Whether the derivatives are read from x; a negative slope hides the sign of u from y.
GAN_FAST_HD bool reads_input(const BiasActNumbers& p) {
  return p.act > (int)Activation::Lrelu || (p.act == (int)Activation::Lrelu && p.alpha < 0);
}
GAN_FAST_HD bool reads_result(const BiasActNumbers& p) {
  return !reads_input(p) && (p.act != (int)Activation::Linear || p.clamp >= 0);
}
// The slope below zero of a piecewise linear activation.
GAN_FAST_HD double slope_below(const BiasActNumbers& p) {
  return p.act == (int)Activation::Linear ? 1 : p.act == (int)Activation::Relu ? 0 : p.alpha;
}

// Not every compiler of this file has a name for it.
GAN_FAST_HD double infinity() {
  const double zero = 0;
  return 1 / zero;
}
// Beyond every number where there is no clamp.
GAN_FAST_HD double limit_of(const BiasActNumbers& p) {
  return p.clamp >= 0 ? p.clamp : infinity();
}
// NaN where there is no clamp: not even infinity reaches it.
GAN_FAST_HD double bound_of(const BiasActNumbers& p) {
  return p.clamp >= 0 ? p.clamp : infinity() - infinity();
}

template <class M>
GAN_FAST_HD typename M::V zero_at_bound(typename M::V value, typename M::V bound, typename M::V derivative) {
  return M::not_positive(bound - M::abs(value), M::constant(0), derivative);
}

// linear, relu, lrelu: y
template <class M>
struct PiecewiseLinear {
  using V = typename M::V;
  static constexpr bool kReadsInput = true;
  V above, below, limit;
  bool relu;

  GAN_FAST_HD explicit PiecewiseLinear(const BiasActNumbers& p)
      : above(M::constant(p.gain)), below(M::constant(p.gain * slope_below(p))), limit(M::constant(limit_of(p))),
        relu(p.act == (int)Activation::Relu) {}

  GAN_FAST_HD V value(V u) const {
    // 0 times infinity is no number, so relu is a maximum
    const V y = relu ? M::maximum(u, M::constant(0)) * above : u * M::positive(u, above, below);
    return M::limit(y, M::constant(0) - limit, limit);
  }
};

// linear without a clamp: D1 is the gain.
template <class M>
struct ConstantSlope {
  using V = typename M::V;
  static constexpr bool kReadsInput = false, kReadsResult = false, kCurved = false;
  V gain;

  GAN_FAST_HD ConstantSlope(const BiasActNumbers& p, double) : gain(M::constant(p.gain)) {}
  GAN_FAST_HD void derivatives(V, V, V& first, V&) const { first = gain; }
};

// linear with a clamp, relu, lrelu: D1 from y. The bound is the clamp as y's type holds it.
template <class M>
struct SlopeOfResult {
  using V = typename M::V;
  static constexpr bool kReadsInput = false, kReadsResult = true, kCurved = false;
  V above, below, sign, bound;

  GAN_FAST_HD SlopeOfResult(const BiasActNumbers& p, double stored_bound)
      : above(M::constant(p.gain)), below(M::constant(p.gain * slope_below(p))), sign(M::constant(p.gain < 0 ? -1 : 1)),
        bound(M::constant(stored_bound)) {}
  GAN_FAST_HD void derivatives(V, V y, V& first, V&) const {
    first = zero_at_bound<M>(y, bound, M::positive(y * sign, above, below));
  }
};

// All others, from u: y, D1 and D2.
template <class M>
struct SmoothActivation {
  using V = typename M::V;
  static constexpr bool kReadsInput = true, kReadsResult = false, kCurved = true;
  Activation act;
  bool clamped;
  V alpha, gain, limit;

  GAN_FAST_HD explicit SmoothActivation(const BiasActNumbers& p, double = 0)
      : act((Activation)p.act), clamped(p.clamp >= 0), alpha(M::constant(p.alpha)), gain(M::constant(p.gain)),
        limit(M::constant(limit_of(p))) {}

  GAN_FAST_HD V value(V u) const {
    const V y = unlimited(u);
    return clamped ? M::limit(y, M::constant(0) - limit, limit) : y;
  }

  GAN_FAST_HD void derivatives(V u, V, V& first, V& second) const {
    slopes(u, first, second);
    first = first * gain;
    second = second * gain;
    if (clamped) {
      const V y = unlimited(u);
      first = zero_at_bound<M>(y, limit, first);
      second = zero_at_bound<M>(y, limit, second);
    }
  }

 private:
  static constexpr double kSeluScale = 1.0507009873554804934193349852946, kSeluAlpha = 1.6732632423543772848170429916717;

  GAN_FAST_HD static V constant(double c) { return M::constant(c); }
  GAN_FAST_HD static V negative_part(V u) { return constant(0) - M::maximum(constant(0) - u, constant(0)); }

  GAN_FAST_HD V unlimited(V u) const {
    switch (act) {
      case Activation::Tanh:
        return gain * M::tanh(u);
      case Activation::Sigmoid:
        return gain * Softplus<M>(u).sigmoid;
      case Activation::Elu:
        return gain * M::positive(u, u, M::expm1(negative_part(u)));
      case Activation::Selu:
        return gain * M::positive(u, constant(kSeluScale) * u, constant(kSeluScale * kSeluAlpha) * M::expm1(negative_part(u)));
      case Activation::Softplus:
        return gain * Softplus<M>(u).value;
      case Activation::Swish:
        return gain * (u * Softplus<M>(u).sigmoid);
      default:
        return gain * (u * M::positive(u, constant(1), alpha));
    }
  }

  GAN_FAST_HD void slopes(V u, V& first, V& second) const {
    const V zero = constant(0), one = constant(1);
    second = zero;
    if (act == Activation::Lrelu) {
      first = M::positive(u, one, alpha);
    } else if (act == Activation::Elu || act == Activation::Selu) {
      const bool selu = act == Activation::Selu;
      const V e = M::exp_nonpositive(negative_part(u)) * constant(selu ? kSeluScale * kSeluAlpha : 1);
      first = M::positive(u, constant(selu ? kSeluScale : 1), e);
      second = M::positive(u, zero, e);
    } else if (act == Activation::Tanh) {
      // 1 - h^2 without cancellation, with e = e^-2|u|
      const V e = M::exp_nonpositive(constant(-2) * M::abs(u)), r = one / (one + e);
      first = constant(4) * e * r * r;
      second = constant(-2) * M::tanh(u) * first;
    } else {
      const Softplus<M> logistic(u);
      const V s = logistic.sigmoid, m = logistic.sigmoid_of_minus, sm = s * m;
      first = act == Activation::Sigmoid ? sm : act == Activation::Softplus ? s : s * (one + u * m);
      second = act == Activation::Sigmoid ? sm * (m - s) : act == Activation::Softplus ? sm : sm * (constant(2) + u * (m - s));
    }
  }
};

}  // namespace gan_fast
