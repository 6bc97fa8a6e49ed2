// The few functions that every loss formula is written with, for one scalar, on host and device.
//
// A formula is a template over a policy M: `M::V` is the value type and the static members below are its arithmetic.
// `ScalarMath<T>` serves CUDA kernels (and the emulator that runs them); `VecMath<T>` in common/cpu/vec_math.h has the
// same members for SIMD vectors. No header is included on device: NVRTC compiles this file as it is.
#pragma once

#if defined(__CUDACC__) || defined(GAN_FAST_SIMT)
#define GAN_FAST_HD __host__ __device__ __forceinline__
#else
#include <cmath>
#define GAN_FAST_HD inline
#endif

namespace gan_fast {

#if !defined(__CUDACC__) && !defined(GAN_FAST_SIMT)
using std::exp;
using std::fabs;
using std::log;
using std::log1p;
#endif

template <class T>
struct ScalarMath {
  using V = T;
  GAN_FAST_HD static V constant(double c) { return static_cast<T>(c); }
  // NaN if either is NaN
  GAN_FAST_HD static V maximum(V a, V b) { return a > b || a != a ? a : b; }
  GAN_FAST_HD static V abs(V x) { return x < T(0) ? -x : x; }
  // e^x for x <= 0
  GAN_FAST_HD static V exp_nonpositive(V x) { return exp_(x); }
  // log(1 + x) for x in [0, 1]
  GAN_FAST_HD static V log1p_unit(V x) { return log1p_(x); }
  GAN_FAST_HD static V log(V x) { return log_(x); }
  GAN_FAST_HD static V log1p(V x) { return log1p_(x); }
  // x > 0 ? a : b, b for NaN
  GAN_FAST_HD static V positive(V x, V a, V b) { return x > T(0) ? a : b; }
  // x <= 0 ? a : b, b for NaN
  GAN_FAST_HD static V not_positive(V x, V a, V b) { return x <= T(0) ? a : b; }
  // a * b + c
  GAN_FAST_HD static V fma(V a, V b, V c) { return a * b + c; }

 private:
#if defined(__CUDACC__) || defined(GAN_FAST_SIMT)
  GAN_FAST_HD static float exp_(float x) { return expf(x); }
  GAN_FAST_HD static double exp_(double x) { return ::exp(x); }
  GAN_FAST_HD static float log_(float x) { return logf(x); }
  GAN_FAST_HD static double log_(double x) { return ::log(x); }
  GAN_FAST_HD static float log1p_(float x) { return log1pf(x); }
  GAN_FAST_HD static double log1p_(double x) { return ::log1p(x); }
#else
  static V exp_(V x) { return std::exp(x); }
  static V log_(V x) { return std::log(x); }
  static V log1p_(V x) { return std::log1p(x); }
#endif
};

// softplus(u) = log(1 + e^u), sigmoid(u) and sigmoid(-u) from one exponential, none of them by cancellation:
// with e = e^-|u|, softplus = max(u, 0) + log1p(e), and the sigmoids are 1 / (1 + e) and e / (1 + e).
template <class M>
struct Softplus {
  typename M::V value, sigmoid, sigmoid_of_minus;

  GAN_FAST_HD explicit Softplus(typename M::V u) {
    using V = typename M::V;
    const V zero = M::constant(0), one = M::constant(1);
    const V e = M::exp_nonpositive(zero - M::abs(u));
    const V large = one / (one + e);
    const V small = e * large;
    value = M::maximum(u, zero) + M::log1p_unit(e);
    sigmoid = M::positive(u, large, small);
    sigmoid_of_minus = M::positive(u, small, large);
  }
};

}  // namespace gan_fast
