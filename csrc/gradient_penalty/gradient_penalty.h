// The penalty on the norms |g_i| of per-sample gradients g_i, as a function of their squares n_i = |g_i|^2:
//
//   square      w/2 mean_i n_i                              R1 and R2
//   two-sided   w mean_i (sqrt(n_i) - c)^2                  WGAN-GP, DRAGAN
//   one-sided   w mean_i max(0, sqrt(n_i) - c)^2            the Lipschitz penalty
//
// Its gradient for g_i is a(n_i) g_i. At n_i = 0 a norm has no derivative; 0 is the one taken.
#pragma once

#include "common/math.h"

namespace gan_fast {

enum class PenaltyKind : int { Square = 0, TwoSided = 1, OneSided = 2 };

template <class T>
struct NormPenalty {
  PenaltyKind kind;
  T center, factor;  // factor: w / N

  GAN_FAST_HD NormPenalty(int k, double c, double f)
      : kind(static_cast<PenaltyKind>(k)), center(static_cast<T>(c)), factor(static_cast<T>(f)) {}

  // Sample i's share of the penalty.
  GAN_FAST_HD T value(T n) const {
    if (kind == PenaltyKind::Square) return factor * n / 2;
    const T excess = root(n) - center;
    return cut(excess) ? T(0) : factor * excess * excess;
  }

  // a(n)
  GAN_FAST_HD T coefficient(T n) const {
    if (kind == PenaltyKind::Square) return factor;
    const T norm = root(n);
    if (cut(norm - center)) return T(0);
    const T ratio = norm != T(0) ? center / norm : T(center > T(0));
    return 2 * factor * (1 - ratio);
  }

 private:
  // NaN is not cut off
  GAN_FAST_HD bool cut(T excess) const { return kind == PenaltyKind::OneSided && excess <= T(0); }
#if defined(__CUDACC__) || defined(GAN_FAST_SIMT)
  GAN_FAST_HD static float root(float x) { return ::sqrtf(x); }
  GAN_FAST_HD static double root(double x) { return ::sqrt(x); }
#else
  static T root(T x) { return std::sqrt(x); }
#endif
};

// x^2, and a multiple of x, for vectors: the passes over g.
template <class M>
struct SquareTerm {
  using V = typename M::V;
  static constexpr bool kUsesY = false;
  static constexpr bool kUsesP = false;
  static constexpr bool kChecks = false;

  GAN_FAST_HD void operator()(V x, V, V, V& value, V& multiple) const {
    value = x * x;
    multiple = x;
  }
};

}  // namespace gan_fast
