// The one loop of the CPU losses: evaluate a formula on a range of a segment, write what is asked for, sum the rest.
//
// Included only by <op>_cpu.cpp files, which are compiled once for each instruction set; it must not pull in inline
// functions of other libraries beyond at::vec, for the linker would keep the widest copy for everyone.
#pragma once

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include "common/cpu/vec_math.h"
#include "common/segment.h"

namespace gan_fast::CPU_CAPABILITY {

// Summed in vectors of the accumulation type over this many elements, then in double: the rounding error of a sum does
// not grow with the length of the segment, and the result does not depend on the number of threads.
constexpr long long kSubBlock = 1024;

template <class S>
struct Accumulate {
  using T = float;
};
template <>
struct Accumulate<double> {
  using T = double;
};

template <class T>
using Vec = at::vec::Vectorized<T>;

// n elements of storage type S as accumulation type T: the memory itself, or a converted copy in `buffer`.
template <class S, class T>
const T* load_block(const void* source, long long begin, long long n, T* buffer) {
  const S* s = static_cast<const S*>(source) + begin;
  if constexpr (sizeof(S) == sizeof(T)) {
    return s;
  } else {
    using VS = at::vec::Vectorized<S>;
    long long i = 0;
    for (; i + VS::size() <= n; i += VS::size()) {
      auto [low, high] = at::vec::convert_to_float<S>(VS::loadu(s + i));
      low.store(buffer + i);
      high.store(buffer + i + Vec<float>::size());
    }
    if (i < n) {
      auto [low, high] = at::vec::convert_to_float<S>(VS::loadu(s + i, n - i));
      const long long first = n - i < Vec<float>::size() ? n - i : Vec<float>::size();
      low.store(buffer + i, first);
      if (n - i > first) {
        high.store(buffer + i + first, n - i - first);
      }
    }
    return buffer;
  }
}

template <class S, class T>
void store_block(const T* buffer, void* target, long long begin, long long n) {
  if constexpr (sizeof(S) != sizeof(T)) {
    S* s = static_cast<S*>(target) + begin;
    using VS = at::vec::Vectorized<S>;
    long long i = 0;
    for (; i + VS::size() <= n; i += VS::size()) {
      at::vec::convert_from_float<S>(Vec<float>::loadu(buffer + i), Vec<float>::loadu(buffer + i + Vec<float>::size()))
          .store(s + i);
    }
    if (i < n) {
      const long long first = n - i < Vec<float>::size() ? n - i : Vec<float>::size();
      const Vec<float> low = Vec<float>::loadu(buffer + i, first);
      const Vec<float> high = n - i > first ? Vec<float>::loadu(buffer + i + first, n - i - first) : Vec<float>(0.f);
      at::vec::convert_from_float<S>(low, high).store(s + i, n - i);
    }
  }
}

// The sample weights of elements [begin, begin + n): one for every `inner` elements.
template <class T>
const T* load_weights(const Segment& s, long long begin, long long n, T* buffer) {
  const T* w = static_cast<const T*>(s.w);
  if (s.inner == 1) {
    return w + begin;
  }
  for (long long i = 0; i < n;) {
    const long long sample = (begin + i) / s.inner;
    const long long end = (sample + 1) * s.inner - begin;
    const T value = w[sample];
    for (; i < n && i < end; ++i) {
      buffer[i] = value;
    }
  }
  return buffer;
}

template <class T>
double horizontal(const Vec<T>& v) {
  alignas(64) T lanes[Vec<T>::size()];
  v.store(lanes);
  double sum = 0;
  for (int i = 0; i < Vec<T>::size(); ++i) {
    sum += static_cast<double>(lanes[i]);
  }
  return sum;
}

// F: operator()(x, y, p, value&, derivative&) on vectors; static kUsesY, kUsesP, kChecks (with valid(x, y) -> mask).
// S: storage type. kMode: what is produced. kFull: also weights, cotangents, offset and the sums beyond the value's.
template <class S, class F, Mode kMode, bool kFull>
void map_reduce(const Segment& s, const F& f, bool stats, long long begin, long long end, Sums& sums) {
  using T = typename Accumulate<S>::T;
  using V = Vec<T>;
  constexpr bool kConverts = sizeof(S) != sizeof(T);
  constexpr bool kGrad = kMode == Mode::ReduceGrad || kMode == Mode::Grad;
  constexpr bool kReduce = kMode == Mode::Reduce || kMode == Mode::ReduceGrad;
  constexpr long long kBuffer = kConverts ? kSubBlock : 1;
  alignas(64) T xb[kBuffer], yb[F::kUsesY ? kBuffer : 1], pb[F::kUsesP ? kBuffer : 1], cb[kFull ? kBuffer : 1];
  alignas(64) T wb[kFull ? kSubBlock : 1], out[kBuffer], out2[kBuffer];
  const V factor(static_cast<T>(s.factor)), offset(static_cast<T>(s.offset)), zero(T(0)), one(T(1));
  const bool weighted = kFull && s.w != nullptr, cotangent = kFull && s.c != nullptr;
  const bool two_sided = F::kUsesY && s.grad2 != nullptr;

  for (long long b = begin; b < end; b += kSubBlock) {
    const long long n = end - b < kSubBlock ? end - b : kSubBlock;
    const T* x = load_block<S, T>(s.x, b, n, xb);
    const T* y = F::kUsesY ? load_block<S, T>(s.y, b, n, yb) : nullptr;
    const T* p = F::kUsesP && s.p != nullptr ? load_block<S, T>(s.p, b, n, pb) : nullptr;
    const T* w = weighted ? load_weights<T>(s, b, n, wb) : nullptr;
    const T* c = cotangent ? load_block<S, T>(s.c, b, n, cb) : nullptr;
    T* target = kConverts ? out : static_cast<T*>(kMode == Mode::Value ? s.value : s.grad) + b;
    T* target2 = kConverts || !two_sided ? out2 : static_cast<T*>(s.grad2) + b;
    V sum(zero), dsum(zero), sx(zero), sxs(zero), sy(zero), sys(zero), invalid(zero);

    auto step = [&](long long i, int count) __attribute__((always_inline)) {
      const bool whole = count == V::size();
      auto load = [&](const T* q) __attribute__((always_inline)) {
        return whole ? V::loadu(q + i) : V::loadu(q + i, count);
      };
      auto kept = [&](const V& v) __attribute__((always_inline)) { return whole ? v : V::set(zero, v, count); };
      const V xv = load(x);
      const V yv = F::kUsesY ? load(y) : zero;
      const V pv = F::kUsesP && p != nullptr ? load(p) : one;
      V value, derivative;
      f(xv, yv, pv, value, derivative);
      if constexpr (kFull) {
        if (weighted) {
          const V wv = load(w);
          value = value * wv;
          derivative = derivative * wv;
        }
        if (cotangent) {
          derivative = derivative * load(c);
        }
      }
      if constexpr (kReduce) {
        sum = sum + kept(value);
      }
      if constexpr (F::kChecks && kMode != Mode::Grad) {
        invalid = invalid + kept(V::blendv(one, zero, F::valid(xv, yv)));
      }
      if constexpr (kFull) {
        dsum = dsum + kept(derivative);
        if (stats) {
          auto sign = [&](const V& v) __attribute__((always_inline)) {
            return V::blendv(V::blendv(v, one, v > zero), zero - one, v < zero);
          };
          sx = sx + kept(xv);
          sxs = sxs + kept(sign(xv));
          if constexpr (F::kUsesY) {
            sy = sy + kept(yv);
            sys = sys + kept(sign(yv));
          }
        }
      }
      if constexpr (kMode == Mode::Value) {
        whole ? value.store(target + i) : value.store(target + i, count);
      }
      if constexpr (kGrad) {
        V grad = derivative * factor;
        if constexpr (kFull) {
          grad = grad + offset;
        }
        whole ? grad.store(target + i) : grad.store(target + i, count);
        if constexpr (F::kUsesY) {
          if (two_sided) {
            const V minus = zero - grad;
            whole ? minus.store(target2 + i) : minus.store(target2 + i, count);
          }
        }
      }
    };

    long long i = 0;
    for (; i + V::size() <= n; i += V::size()) {
      step(i, V::size());
    }
    if (i < n) {
      step(i, static_cast<int>(n - i));
    }

    if constexpr (kMode == Mode::Value || kGrad) {
      store_block<S, T>(target, kMode == Mode::Value ? s.value : s.grad, b, n);
      if (kGrad && two_sided) {
        store_block<S, T>(target2, s.grad2, b, n);
      }
    }
    if constexpr (kReduce) {
      sums.value += horizontal<T>(sum);
    }
    if constexpr (F::kChecks) {
      sums.invalid += horizontal<T>(invalid);
    }
    if constexpr (kFull) {
      sums.derivative += horizontal<T>(dsum);
      if (stats) {
        sums.x += horizontal<T>(sx);
        sums.x_sign += horizontal<T>(sxs);
        sums.y += horizontal<T>(sy);
        sums.y_sign += horizontal<T>(sys);
      }
    }
  }
}

// The run-time mode as a template argument.
template <class S, class F, bool kFull>
void map_reduce(Mode mode, const Segment& s, const F& f, bool stats, long long begin, long long end, Sums& sums) {
  switch (mode) {
    case Mode::Reduce:
      return map_reduce<S, F, Mode::Reduce, kFull>(s, f, stats, begin, end, sums);
    case Mode::ReduceGrad:
      return map_reduce<S, F, Mode::ReduceGrad, kFull>(s, f, stats, begin, end, sums);
    case Mode::Value:
      return map_reduce<S, F, Mode::Value, kFull>(s, f, stats, begin, end, sums);
    case Mode::Grad:
      return map_reduce<S, F, Mode::Grad, kFull>(s, f, stats, begin, end, sums);
  }
}

// `make(VecMath<T>{})` builds the functor for the accumulation type; `full`: something beyond the fast path is asked for.
template <class Make>
void map_reduce_any(
    int storage, Mode mode, bool full, const Segment& s, const Make& make, bool stats, long long begin, long long end,
    Sums& sums) {
  auto run = [&]<class S>(S) {
    const auto f = make(VecMath<typename Accumulate<S>::T>{});
    using F = decltype(f);
    if (full) {
      map_reduce<S, std::remove_const_t<F>, true>(mode, s, f, stats, begin, end, sums);
    } else {
      map_reduce<S, std::remove_const_t<F>, false>(mode, s, f, stats, begin, end, sums);
    }
  };
  switch (storage) {
    case 0:
      return run(float{});
    case 1:
      return run(double{});
    case 2:
      return run(c10::BFloat16{});
    default:
      return run(c10::Half{});
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
