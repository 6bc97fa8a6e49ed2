// The passes of bias_act over tasks (bias_act_job.h), for every storage type and activation.

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <cstring>
#include <numeric>
#include <vector>

#include "bias_act/bias_act_job.h"
#include "common/cpu/vec_math.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

template <class T>
struct ActivationMath : VecMath<T> {
  using V = at::vec::Vectorized<T>;
  static V tanh(V x) { return x.tanh(); }
  static V expm1(V x) { return x.expm1(); }
  static V limit(V x, V low, V high) { return at::vec::clamp(x, low, high); }
};

// A step's worth of elements in registers: one vector of float or double, two of float for one of 16-bit numbers.
template <class S>
struct Lanes {
  static constexpr bool kConverts = sizeof(S) == 2;
  using T = std::conditional_t<kConverts, float, S>;
  using V = at::vec::Vectorized<T>;
  static constexpr int kVectors = kConverts ? 2 : 1;
  static constexpr int kStep = kVectors * V::size();
  V v[kVectors];

  static Lanes all(T value) {
    Lanes r;
    for (V& v : r.v) v = V(value);
    return r;
  }
  static Lanes load(const S* p) {
    Lanes r;
    if constexpr (kConverts) {
      auto [low, high] = at::vec::convert_to_float<S>(at::vec::Vectorized<S>::loadu(p));
      r.v[0] = low;
      r.v[1] = high;
    } else {
      r.v[0] = V::loadu(p);
    }
    return r;
  }
  void store(S* p) const {
    if constexpr (kConverts) {
      at::vec::convert_from_float<S>(v[0], v[1]).store(p);
    } else {
      v[0].store(p);
    }
  }
  // Numbers of the accumulation type.
  static Lanes load_wide(const T* p) {
    Lanes r;
    for (int j = 0; j < kVectors; ++j) r.v[j] = V::loadu(p + j * V::size());
    return r;
  }
  void store_wide(T* p) const {
    for (int j = 0; j < kVectors; ++j) v[j].store(p + j * V::size());
  }
  void add(const Lanes& other) {
    for (int j = 0; j < kVectors; ++j) v[j] = v[j] + other.v[j];
  }
  T total() const {
    alignas(64) T lanes[kStep];
    store_wide(lanes);
    double sum = 0;
    for (T x : lanes) sum += static_cast<double>(x);
    return static_cast<T>(sum);
  }
};

// The first `count` elements at p, zeros after them: whole steps and the tail go the same way.
template <class E, class R>
R padded(const E* p, int count, R (*load)(const E*)) {
  alignas(64) E buffer[R::kStep] = {};
  std::memcpy(static_cast<void*>(buffer), p, count * sizeof(E));
  return load(buffer);
}

template <class L, class S>
L fetch(const S* p, int count) {
  return count == L::kStep ? L::load(p) : padded<S, L>(p, count, &L::load);
}
template <class L>
L fetch_wide(const typename L::T* p, int count) {
  return count == L::kStep ? L::load_wide(p) : padded<typename L::T, L>(p, count, &L::load_wide);
}
template <class L, class S>
void put(const L& value, S* p, int count) {
  if (count == L::kStep) {
    value.store(p);
  } else {
    alignas(64) S buffer[L::kStep];
    value.store(buffer);
    std::memcpy(static_cast<void*>(p), buffer, count * sizeof(S));
  }
}
template <class L>
void put_wide(const L& value, typename L::T* p, int count) {
  if (count == L::kStep) {
    value.store_wide(p);
  } else {
    alignas(64) typename L::T buffer[L::kStep];
    value.store_wide(buffer);
    std::memcpy(p, buffer, count * sizeof(buffer[0]));
  }
}

// The parameters of a step; noise is added to the bias, its cotangent to the bias's.
template <class L>
struct Parameters {
  L scale, bias, tscale, tbias;
};

// One pass. F: the activation with its derivatives; kOrder as in the job; kReadsX: x is read besides what F needs it for.
template <class S, class F, int kOrder, bool kReadsX>
struct Pass {
  using L = Lanes<S>;
  using T = typename L::T;
  using V = typename L::V;
  using M = ActivationMath<T>;
  static constexpr int kStep = L::kStep;

  const BiasActJob& job;
  const F f;
  const S *const v, *const x, *const y, *const t;
  S *const out, *const out2;
  T *const sums, *const scale_sums, *const noise_sums;

  Pass(const BiasActJob& j, const F& activation)
      : job(j), f(activation), v(static_cast<const S*>(j.v)), x(static_cast<const S*>(j.x)), y(static_cast<const S*>(j.y)),
        t(static_cast<const S*>(j.t)), out(static_cast<S*>(j.out)), out2(static_cast<S*>(j.out2)),
        sums(static_cast<T*>(j.sums)), scale_sums(static_cast<T*>(j.scale_sums)), noise_sums(static_cast<T*>(j.noise_sums)) {}

  const T* wide(const void* p, long long offset) const { return static_cast<const T*>(p) + offset; }

  // Elements i .. i + count of memory: writes the results, and returns the terms of the two sums.
  void step(long long i, int count, const Parameters<L>& p, L& term, L& scale_term) const __attribute__((always_inline)) {
    const L a = fetch<L>(v + i, count);
    if constexpr (kOrder == 0) {
      L r;
      for (int j = 0; j < L::kVectors; ++j) r.v[j] = f.value(M::fma(a.v[j], p.scale.v[j], p.bias.v[j]));
      put(r, out + i, count);
    } else {
      constexpr bool kX = kReadsX || F::kReadsInput;
      const L zero = L::all(T(0));
      const L xs = kX ? fetch<L>(x + i, count) : zero;
      const L ys = F::kReadsResult ? fetch<L>(y + i, count) : zero;
      const bool has_t = kOrder == 2 && t != nullptr;
      const L ts = has_t ? fetch<L>(t + i, count) : zero;
      L r, r2;
      for (int j = 0; j < L::kVectors; ++j) {
        V first, second;
        const V u = F::kReadsInput ? M::fma(xs.v[j], p.scale.v[j], p.bias.v[j]) : zero.v[j];
        f.derivatives(u, ys.v[j], first, second);
        const V g = a.v[j] * first;
        if constexpr (kOrder == 1) {
          r.v[j] = g * p.scale.v[j];
          term.v[j] = g;
          scale_term.v[j] = kX ? g * xs.v[j] : zero.v[j];
        } else {
          V moved = p.tbias.v[j];
          if (has_t) moved = M::fma(ts.v[j], p.scale.v[j], moved);
          if constexpr (kX) moved = M::fma(xs.v[j], p.tscale.v[j], moved);
          r.v[j] = first * moved;
          scale_term.v[j] = g * ts.v[j];
          r2.v[j] = g * p.tscale.v[j];
          if constexpr (F::kCurved) {
            const V q = a.v[j] * second * moved;
            term.v[j] = q;
            scale_term.v[j] = M::fma(q, xs.v[j], scale_term.v[j]);
            r2.v[j] = M::fma(q, p.scale.v[j], r2.v[j]);
          } else {
            term.v[j] = zero.v[j];
          }
        }
      }
      if (out != nullptr) put(r, out + i, count);
      if (kOrder == 2 && out2 != nullptr) put(r2, out2 + i, count);
    }
  }

  // Pixels [begin, end) of one channel: the parameters are constants but for the noise.
  void planar_row(long long n, long long c, long long begin, long long end) const {
    Parameters<L> p;
    p.scale = L::all(*wide(job.scale, n * job.scale_stride + c));
    const L bias = L::all(*wide(job.bias, c));
    p.tscale = L::all(kOrder == 2 ? *wide(job.tscale, n * job.tscale_stride + c) : T(0));
    const L tbias = L::all(kOrder == 2 ? *wide(job.tbias, c) : T(0));
    p.bias = bias;
    p.tbias = tbias;
    const long long base = (n * job.channels + c) * job.pixels;
    const T* noise = F::kReadsInput && job.noise != nullptr ? wide(job.noise, n * job.noise_stride) : nullptr;
    const T* tnoise = kOrder == 2 && job.tnoise != nullptr ? wide(job.tnoise, n * job.tnoise_stride) : nullptr;
    T* over_channels = noise_sums != nullptr ? noise_sums + n * job.pixels : nullptr;
    L sum = L::all(T(0)), scale_sum = L::all(T(0));
    auto one = [&](long long i, int count) __attribute__((always_inline)) {
      if (noise != nullptr) {
        p.bias = fetch_wide<L>(noise + i, count);
        p.bias.add(bias);
      }
      if (tnoise != nullptr) {
        p.tbias = fetch_wide<L>(tnoise + i, count);
        p.tbias.add(tbias);
      }
      L term, scale_term;
      step(base + i, count, p, term, scale_term);
      if constexpr (kOrder > 0) {
        sum.add(term);
        scale_sum.add(scale_term);
        if (over_channels != nullptr) {
          if (c > 0) term.add(fetch_wide<L>(over_channels + i, count));
          put_wide(term, over_channels + i, count);
        }
      }
    };
    long long i = begin;
    for (; i + kStep <= end; i += kStep) one(i, kStep);
    if (i < end) one(i, static_cast<int>(end - i));
    if constexpr (kOrder > 0) {
      const long long place = (n * job.channels + c) * job.chunks() + begin / job.chunk;
      if (sums != nullptr) sums[place] = sum.total();
      if (scale_sums != nullptr) scale_sums[place] = scale_sum.total();
    }
  }

  // A pixel with all its channels; parameters come in vectors, their sums go to memory. Memory is walked in its order: several
  // pixels at a time would load parameters and sums less often, but their streams lie a multiple of the channels apart, and at
  // 128 channels of four bytes that took twice as long for images larger than the caches.
  void interleaved_pixel(long long n, long long pixel, T* sum, T* scale_sum) const {
    const T* scale = wide(job.scale, n * job.scale_stride);
    const T* tscale = kOrder == 2 ? wide(job.tscale, n * job.tscale_stride) : nullptr;
    const bool noisy = F::kReadsInput && job.noise != nullptr, tnoisy = kOrder == 2 && job.tnoise != nullptr;
    const V noise(noisy ? *wide(job.noise, n * job.noise_stride + pixel) : T(0));
    const V tnoise(tnoisy ? *wide(job.tnoise, n * job.tnoise_stride + pixel) : T(0));
    L over_channels = L::all(T(0));
    const long long base = (n * job.pixels + pixel) * job.channels;
    auto one = [&](long long c, int count) __attribute__((always_inline)) {
      Parameters<L> p;
      p.scale = fetch_wide<L>(scale + c, count);
      p.bias = fetch_wide<L>(wide(job.bias, c), count);
      if constexpr (kOrder == 2) {
        p.tscale = fetch_wide<L>(tscale + c, count);
        p.tbias = fetch_wide<L>(wide(job.tbias, c), count);
      }
      for (int j = 0; j < L::kVectors; ++j) {
        p.bias.v[j] = p.bias.v[j] + noise;
        if constexpr (kOrder == 2) p.tbias.v[j] = p.tbias.v[j] + tnoise;
      }
      L term, scale_term;
      step(base + c, count, p, term, scale_term);
      if constexpr (kOrder > 0) {
        over_channels.add(term);
        if (sum != nullptr) {
          term.add(fetch_wide<L>(sum + c, count));
          put_wide(term, sum + c, count);
        }
        if (scale_sum != nullptr) {
          scale_term.add(fetch_wide<L>(scale_sum + c, count));
          put_wide(scale_term, scale_sum + c, count);
        }
      }
    };
    long long c = 0;
    for (; c + kStep <= job.channels; c += kStep) one(c, kStep);
    if (c < job.channels) one(c, static_cast<int>(job.channels - c));
    if constexpr (kOrder > 0) {
      if (noise_sums != nullptr) noise_sums[n * job.pixels + pixel] = over_channels.total();
    }
  }

  // Few channels that make no whole step: pixels side by side do, and their parameters are laid out as often. Adds the sums of
  // whole groups of such pixels from `pixel` on, and returns the first pixel that is left.
  long long folded(long long n, long long pixel, long long end, T* sum, T* scale_sum) const {
    const int channels = static_cast<int>(job.channels), repeat = kStep / std::gcd(channels, kStep), width = repeat * channels;
    std::vector<T> memory(7 * width, T(0));
    std::vector<int> owner(width);
    T *const scale = memory.data(), *const bias = scale + width, *const tscale = bias + width, *const tbias = tscale + width;
    T *const totals = tbias + width, *const scale_totals = totals + width, *const terms = scale_totals + width;
    for (int i = 0; i < width; ++i) {
      const int c = i % channels;
      owner[i] = i / channels;
      scale[i] = wide(job.scale, n * job.scale_stride)[c];
      bias[i] = wide(job.bias, 0)[c];
      if constexpr (kOrder == 2) {
        tscale[i] = wide(job.tscale, n * job.tscale_stride)[c];
        tbias[i] = wide(job.tbias, 0)[c];
      }
    }
    const T* noise = F::kReadsInput && job.noise != nullptr ? wide(job.noise, n * job.noise_stride) : nullptr;
    const T* tnoise = kOrder == 2 && job.tnoise != nullptr ? wide(job.tnoise, n * job.tnoise_stride) : nullptr;
    const auto spread = [&](const T* of_pixels, int first) {
      alignas(64) T values[kStep];
      for (int l = 0; l < kStep; ++l) values[l] = of_pixels[owner[first + l]];
      return L::load_wide(values);
    };
    for (; pixel + repeat <= end; pixel += repeat) {
      const long long base = (n * job.pixels + pixel) * channels;
      for (int i = 0; i < width; i += kStep) {
        Parameters<L> p;
        p.scale = L::load_wide(scale + i);
        p.bias = L::load_wide(bias + i);
        if (noise != nullptr) p.bias.add(spread(noise + pixel, i));
        if constexpr (kOrder == 2) {
          p.tscale = L::load_wide(tscale + i);
          p.tbias = L::load_wide(tbias + i);
          if (tnoise != nullptr) p.tbias.add(spread(tnoise + pixel, i));
        }
        L term, scale_term;
        step(base + i, kStep, p, term, scale_term);
        if constexpr (kOrder > 0) {
          if (noise_sums != nullptr) term.store_wide(terms + i);
          term.add(L::load_wide(totals + i));
          term.store_wide(totals + i);
          scale_term.add(L::load_wide(scale_totals + i));
          scale_term.store_wide(scale_totals + i);
        }
      }
      if constexpr (kOrder > 0) {
        if (noise_sums != nullptr) {
          for (int k = 0; k < repeat; ++k) {
            double total = 0;
            for (int c = 0; c < channels; ++c) total += static_cast<double>(terms[k * channels + c]);
            noise_sums[n * job.pixels + pixel + k] = static_cast<T>(total);
          }
        }
      }
    }
    for (int i = 0; i < width; ++i) {
      if (sum != nullptr) sum[i % channels] += totals[i];
      if (scale_sum != nullptr) scale_sum[i % channels] += scale_totals[i];
    }
    return pixel;
  }

  void interleaved_task(long long n, long long begin, long long end, long long task) const {
    T* sum = sums != nullptr ? sums + task * job.channels : nullptr;
    T* scale_sum = scale_sums != nullptr ? scale_sums + task * job.channels : nullptr;
    for (T* s : {sum, scale_sum}) {
      if (s != nullptr) std::memset(s, 0, job.channels * sizeof(T));
    }
    long long pixel = begin;
    if (job.channels % kStep != 0 && job.channels < 2 * kStep) pixel = folded(n, begin, end, sum, scale_sum);
    for (; pixel < end; ++pixel) interleaved_pixel(n, pixel, sum, scale_sum);
  }

  void tasks(long long first, long long last) const {
    const long long chunks = job.chunks();
    for (long long task = first; task < last; ++task) {
      const long long begin = task % chunks * job.chunk;
      const long long end = begin + job.chunk < job.pixels ? begin + job.chunk : job.pixels;
      if (!job.planar) {
        interleaved_task(task / chunks, begin, end, task);
      } else if (job.loops_channels()) {
        for (long long c = 0; c < job.channels; ++c) planar_row(task / chunks, c, begin, end);
      } else {
        const long long row = task / chunks;
        planar_row(row / job.channels, row % job.channels, begin, end);
      }
    }
  }
};

template <class S, int kOrder, template <class> class F>
void differentiate(const BiasActJob& job, double stored_bound, long long first, long long last) {
  using A = F<ActivationMath<typename Lanes<S>::T>>;
  const A f(job.numbers, stored_bound);
  const bool reads_x = job.order == 1 ? job.scale_sums != nullptr : job.reads_tscale;
  if (reads_x && !A::kReadsInput) {
    Pass<S, A, kOrder, true>(job, f).tasks(first, last);
  } else {
    Pass<S, A, kOrder, false>(job, f).tasks(first, last);
  }
}

template <class S, int kOrder>
void differentiate(const BiasActJob& job, long long first, long long last) {
  const double bound = bound_of(job.numbers);
  const double stored = static_cast<double>(static_cast<typename Lanes<S>::T>(static_cast<S>(static_cast<typename Lanes<S>::T>(bound))));
  if (reads_input(job.numbers)) {
    differentiate<S, kOrder, SmoothActivation>(job, stored, first, last);
  } else if (reads_result(job.numbers)) {
    differentiate<S, kOrder, SlopeOfResult>(job, stored, first, last);
  } else {
    differentiate<S, kOrder, ConstantSlope>(job, stored, first, last);
  }
}

template <class S>
void run(const BiasActJob& job, long long first, long long last) {
  using M = ActivationMath<typename Lanes<S>::T>;
  if (job.order == 1) {
    differentiate<S, 1>(job, first, last);
  } else if (job.order == 2) {
    differentiate<S, 2>(job, first, last);
  } else if (reads_input(job.numbers)) {
    Pass<S, SmoothActivation<M>, 0, false>(job, SmoothActivation<M>(job.numbers)).tasks(first, last);
  } else {
    Pass<S, PiecewiseLinear<M>, 0, false>(job, PiecewiseLinear<M>(job.numbers)).tasks(first, last);
  }
}

}  // namespace

void bias_act_tasks(const BiasActJob& job, long long first, long long last) {
  switch (job.storage) {
    case 0:
      return run<float>(job, first, last);
    case 1:
      return run<double>(job, first, last);
    case 2:
      return run<c10::BFloat16>(job, first, last);
    default:
      return run<c10::Half>(job, first, last);
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
