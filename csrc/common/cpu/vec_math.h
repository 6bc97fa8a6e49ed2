// The arithmetic of common/math.h for SIMD vectors (`at::vec`), compiled once for each instruction set.
//
// exp and log1p are our own polynomials in float: an adversarial loss needs them on half-lines only, so they can
// be shorter than the general functions. The fits' own errors stand beside each; results are held to tests/support/tolerances.py.
#pragma once

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <cstdint>

namespace gan_fast::CPU_CAPABILITY {

template <class T>
struct VecMath {
  using V = at::vec::Vectorized<T>;
  static V constant(double c) { return V(static_cast<T>(c)); }
  static V maximum(V a, V b) { return at::vec::maximum(a, b); }
  static V abs(V x) { return x.abs(); }
  static V exp_nonpositive(V x);
  static V log1p_unit(V x);
  static V log(V x) { return x.log(); }
  static V log1p(V x) { return x.log1p(); }
  static V positive(V x, V a, V b) { return V::blendv(b, a, x > V(T(0))); }
  static V not_positive(V x, V a, V b) { return V::blendv(b, a, x <= V(T(0))); }
  static V fma(V a, V b, V c) { return at::vec::fmadd(a, b, c); }
};

template <>
inline VecMath<double>::V VecMath<double>::exp_nonpositive(V x) {
  return x.exp();
}

template <>
inline VecMath<double>::V VecMath<double>::log1p_unit(V x) {
  return x.log1p();
}

// e^x = 2^n e^r with n = round(x / ln 2), |r| <= ln(2) / 2, and a polynomial of degree 6 for e^r (relative error 2e-9).
// 2^n is built as 2^(n + 64) 2^-64, so that results below the smallest normal number round as they should.
template <>
inline VecMath<float>::V VecMath<float>::exp_nonpositive(V x) {
  using I = at::vec::Vectorized<std::int32_t>;
  // below -104 the result is 0; the maximum keeps NaN
  x = maximum(x, V(-104.f));
  // adding 1.5 * 2^23 rounds to an integer and leaves it in the low bits; + 127 + 64 makes those the exponent of 2^(n + 64)
  const V magic(12582912.f + 127.f + 64.f);
  const V t = fma(x, V(1.442695041f), magic);
  const V n = t - magic;
  V r = fma(n, V(-0.693145751953125f), x);
  r = fma(n, V(-1.428606765330187e-06f), r);
  V p(0.00138368536985f);
  p = fma(p, r, V(0.00837481582849f));
  p = fma(p, r, V(0.0416682254238f));
  p = fma(p, r, V(0.166664201696f));
  p = fma(p, r, V(0.499999920805f));
  p = fma(p, r, V(1.00000003632f));
  p = fma(p, r, V(1.00000000055f));
  const V power = at::vec::cast<float>(at::vec::cast<std::int32_t>(t) << I(23));
  return p * power * V(5.421010862427522e-20f);
}

// x times a polynomial of degree 9 for log1p(x) / x on [0, 1] (relative error 5e-9)
template <>
inline VecMath<float>::V VecMath<float>::log1p_unit(V x) {
  V p(-0.00324401426293f);
  p = fma(p, x, V(0.0198514095622f));
  p = fma(p, x, V(-0.0569594267501f));
  p = fma(p, x, V(0.106036429456f));
  p = fma(p, x, V(-0.153055847447f));
  p = fma(p, x, V(0.196759361977f));
  p = fma(p, x, V(-0.249541329725f));
  p = fma(p, x, V(0.333299623393f));
  p = fma(p, x, V(-0.499999024196f));
  p = fma(p, x, V(0.999999995287f));
  return p * x;
}

}  // namespace gan_fast::CPU_CAPABILITY
