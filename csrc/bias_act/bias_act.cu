// bias_act on the card: bias_act.h says what it is, bias_act_arguments.h how elements are shared between warps.
//
// Kernels: bias_act_{forward,backward,double_backward}_{planar,interleaved}_<dtype>.
#include "bias_act/bias_act.h"
#include "bias_act/bias_act_arguments.h"
#include "common/cuda/device.h"

namespace gan_fast::cuda {

template <class T>
struct ActivationMath : DeviceMath<T> {
  __device__ __forceinline__ static float tanh(float x) { return tanhf(x); }
  __device__ __forceinline__ static double tanh(double x) { return ::tanh(x); }
  __device__ __forceinline__ static float expm1(float x) { return expm1f(x); }
  __device__ __forceinline__ static double expm1(double x) { return ::expm1(x); }
  // NaN stays
  __device__ __forceinline__ static T limit(T x, T low, T high) { return x < low ? low : x > high ? high : x; }
};

// The parameters of one element; noise is in the bias, its cotangent in the bias's.
template <class T>
struct ElementParameters {
  T scale, bias, tscale, tbias;
};
template <class T>
struct ElementResults {
  T out, out2, sum, scale_sum;
};

template <class T>
struct ElementInputs {
  T v, x, y, t;
};

// kOrder: 0 forward, 1 backward, 2 double backward.
template <int kOrder, class T, class F>
__device__ __forceinline__ ElementResults<T> element(const F& f, const ElementInputs<T>& in, const ElementParameters<T>& p) {
  using M = ActivationMath<T>;
  ElementResults<T> r{};
  if constexpr (kOrder == 0) {
    r.out = f.value(M::fma(in.v, p.scale, p.bias));
  } else {
    T first, second = 0;
    f.derivatives(M::fma(in.x, p.scale, p.bias), in.y, first, second);
    const T g = in.v * first;
    if constexpr (kOrder == 1) {
      r.out = g * p.scale;
      r.sum = g;
      r.scale_sum = g * in.x;
    } else {
      const T moved = M::fma(in.x, p.tscale, M::fma(in.t, p.scale, p.tbias));
      const T q = F::kCurved ? in.v * second * moved : T(0);
      r.out = first * moved;
      r.out2 = M::fma(q, p.scale, g * p.tscale);
      r.sum = q;
      r.scale_sum = M::fma(q, in.x, g * in.t);
    }
  }
  return r;
}

// V elements from `place` on: a packet, or an element by itself.
template <class S, int V, class T>
__device__ __forceinline__ void read(const void* source, long long place, T (&out)[V]) {
  if (source == nullptr) {
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = 0;
  } else {
    load<S, V>(static_cast<const S*>(source) + place, 0, out);
  }
}

template <class S, int V, class T>
__device__ __forceinline__ void write(void* target, long long place, const T (&in)[V]) {
  if (target != nullptr) store<S, V>(static_cast<S*>(target) + place, 0, in);
}

template <class T, int V>
struct PacketParameters {
  T scale[V], bias[V], tscale[V], tbias[V];
};

// A packet's worth of work at `place`; adds to the sums of its elements.
template <class S, int V, int kOrder, class F, class T>
__device__ __forceinline__ void packet(
    const BiasActArguments& a, const F& f, long long place, const PacketParameters<T, V>& p, T (&sum)[V], T (&scale_sum)[V]) {
  T v[V], x[V], y[V], t[V], out[V], out2[V];
  read<S, V>(a.v, place, v);
  read<S, V>(kOrder > 0 ? a.x : nullptr, place, x);
  read<S, V>(kOrder > 0 ? a.y : nullptr, place, y);
  read<S, V>(kOrder > 1 ? a.t : nullptr, place, t);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const ElementResults<T> r =
        element<kOrder, T>(f, {v[j], x[j], y[j], t[j]}, {p.scale[j], p.bias[j], p.tscale[j], p.tbias[j]});
    out[j] = r.out;
    out2[j] = r.out2;
    sum[j] += r.sum;
    scale_sum[j] += r.scale_sum;
  }
  write<S, V>(a.out, place, out);
  if constexpr (kOrder > 1) write<S, V>(a.out2, place, out2);
}

template <class T>
__device__ __forceinline__ T value_at(const void* p, long long place, T absent = T(0)) {
  return p ? static_cast<const T*>(p)[place] : absent;
}

template <class S, int V, int kOrder, class F>
__device__ __forceinline__ void planar_unit(const BiasActArguments& a, const F& f, long long unit, int lane) {
  using T = typename Accumulate<S>::T;
  const long long tile = unit % a.tiles, group = unit / a.tiles % a.groups, n = unit / a.tiles / a.groups;
  if (n >= a.samples) return;
  const long long begin = tile * a.tile, end = begin + a.tile < a.pixels ? begin + a.tile : a.pixels;
  const long long first = group * a.group, last = first + a.group < a.channels ? first + a.group : a.channels;
  T over_channels[V] = {};  // of this lane's only packet, where it is wanted
#pragma unroll 1
  for (long long c = first; c < last; ++c) {
    const long long row = n * a.channels + c;
    const T scale = value_at<T>(a.scale, n * a.scale_stride + c), bias = value_at<T>(a.bias, c);
    const T tscale = kOrder > 1 ? value_at<T>(a.tscale, n * a.tscale_stride + c) : T(0);
    const T tbias = kOrder > 1 ? value_at<T>(a.tbias, c) : T(0);
    T total = 0, scale_total = 0;
#pragma unroll 1
    for (long long i = begin + lane * V; i < end; i += kWarp * V) {
      PacketParameters<T, V> p;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        p.scale[j] = scale;
        p.tscale[j] = tscale;
        p.bias[j] = bias + value_at<T>(a.noise, n * a.noise_stride + i + j);
        p.tbias[j] = kOrder > 1 ? tbias + value_at<T>(a.tnoise, n * a.tnoise_stride + i + j) : T(0);
      }
      T sum[V] = {}, scale_sum[V] = {};
      packet<S, V, kOrder>(a, f, row * a.pixels + i, p, sum, scale_sum);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        total += sum[j];
        scale_total += scale_sum[j];
        over_channels[j] += sum[j];
      }
    }
    if constexpr (kOrder > 0) {
      total = warp_sum(total);
      scale_total = warp_sum(scale_total);
      if (lane == 0 && a.sums) static_cast<T*>(a.sums)[row * a.tiles + tile] = total;
      if (lane == 0 && a.scale_sums) static_cast<T*>(a.scale_sums)[row * a.tiles + tile] = scale_total;
    }
  }
  if (kOrder > 0 && a.noise_sums && begin + lane * V < end) {
    T* target = static_cast<T*>(a.noise_sums) + (n * a.groups + group) * a.pixels + begin + lane * V;
#pragma unroll
    for (int j = 0; j < V; ++j) target[j] = over_channels[j];
  }
}

// The sum over the lanes whose numbers differ in bits from `low` up to below `high`, in every lane of them.
template <class T>
__device__ __forceinline__ T sum_between(T v, int low, int high) {
#pragma unroll 1
  for (int d = low; d < high; d *= 2) v += __shfl_xor_sync(kFullMask, v, d);
  return v;
}

template <class S, int V, int kOrder, class F>
__device__ __forceinline__ void interleaved_unit(const BiasActArguments& a, const F& f, long long unit, int lane) {
  using T = typename Accumulate<S>::T;
  const long long strip = unit % a.strips, tile = unit / a.strips % a.tiles, n = unit / a.strips / a.tiles;
  if (n >= a.samples) return;
  const long long begin = tile * a.tile, end = begin + a.tile < a.pixels ? begin + a.tile : a.pixels;
  const long long c = (strip * a.lanes + lane % a.lanes) * V;
  const bool inside = c < a.channels;
  const int at_a_time = kWarp / a.lanes;
  T scale[V], bias[V], tscale[V], tbias[V], sum[V] = {}, scale_sum[V] = {};
#pragma unroll
  for (int j = 0; j < V; ++j) {
    scale[j] = inside ? value_at<T>(a.scale, n * a.scale_stride + c + j) : T(0);
    bias[j] = inside ? value_at<T>(a.bias, c + j) : T(0);
    tscale[j] = kOrder > 1 && inside ? value_at<T>(a.tscale, n * a.tscale_stride + c + j) : T(0);
    tbias[j] = kOrder > 1 && inside ? value_at<T>(a.tbias, c + j) : T(0);
  }
  // All lanes take every turn, for they meet in the sums over channels.
#pragma unroll 1
  for (long long first = begin; first < end; first += at_a_time) {
    const long long i = first + lane / a.lanes;
    T over_channels = 0;
    if (inside && i < end) {
      const T noise = value_at<T>(a.noise, n * a.noise_stride + i);
      const T tnoise = kOrder > 1 ? value_at<T>(a.tnoise, n * a.tnoise_stride + i) : T(0);
      PacketParameters<T, V> p;
      T one[V] = {};
#pragma unroll
      for (int j = 0; j < V; ++j) {
        p.scale[j] = scale[j];
        p.bias[j] = bias[j] + noise;
        p.tscale[j] = tscale[j];
        p.tbias[j] = tbias[j] + tnoise;
      }
      packet<S, V, kOrder>(a, f, (n * a.pixels + i) * a.channels + c, p, one, scale_sum);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum[j] += one[j];
        over_channels += one[j];
      }
    }
    if (kOrder > 0 && a.noise_sums) {
      over_channels = sum_between(over_channels, 1, a.lanes);
      if (lane % a.lanes == 0 && i < end) static_cast<T*>(a.noise_sums)[(n * a.strips + strip) * a.pixels + i] = over_channels;
    }
  }
  if constexpr (kOrder > 0) {
#pragma unroll
    for (int j = 0; j < V; ++j) {
      sum[j] = sum_between(sum[j], a.lanes, kWarp);
      scale_sum[j] = sum_between(scale_sum[j], a.lanes, kWarp);
    }
    if (inside && lane < a.lanes) {
      const long long place = (n * a.tiles + tile) * a.channels + c;
#pragma unroll
      for (int j = 0; j < V; ++j) {
        if (a.sums) static_cast<T*>(a.sums)[place + j] = sum[j];
        if (a.scale_sums) static_cast<T*>(a.scale_sums)[place + j] = scale_sum[j];
      }
    }
  }
}

template <class S, int kOrder, bool kPlanar, class F>
__device__ __forceinline__ void unit_of(const BiasActArguments& a, const F& f) {
  constexpr int V = kVector<S>;
  const long long unit = (long long)blockIdx.x * kBiasActWarps + threadIdx.x / kWarp;
  const int lane = threadIdx.x % kWarp;
  if constexpr (kPlanar) {
    a.vector ? planar_unit<S, V, kOrder>(a, f, unit, lane) : planar_unit<S, 1, kOrder>(a, f, unit, lane);
  } else {
    a.vector ? interleaved_unit<S, V, kOrder>(a, f, unit, lane) : interleaved_unit<S, 1, kOrder>(a, f, unit, lane);
  }
}

template <class S, int kOrder, bool kPlanar>
__device__ __forceinline__ void bias_act(const BiasActArguments& a) {
  using M = ActivationMath<typename Accumulate<S>::T>;
  if (reads_input(a.numbers)) {
    unit_of<S, kOrder, kPlanar>(a, SmoothActivation<M>(a.numbers));
  } else if constexpr (kOrder == 0) {
    unit_of<S, kOrder, kPlanar>(a, PiecewiseLinear<M>(a.numbers));
  } else if (reads_result(a.numbers)) {
    unit_of<S, kOrder, kPlanar>(a, SlopeOfResult<M>(a.numbers, a.stored_bound));
  } else {
    unit_of<S, kOrder, kPlanar>(a, ConstantSlope<M>(a.numbers, a.stored_bound));
  }
}

}  // namespace gan_fast::cuda

#define GAN_FAST_BIAS_ACT(pass, order, layout, is_planar, dtype, S)                                        \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kBiasActThreads, 2)                         \
      bias_act_##pass##_##layout##_##dtype(const __grid_constant__ gan_fast::cuda::BiasActArguments a) {   \
    gan_fast::cuda::bias_act<S, order, is_planar>(a);                                                      \
  }
#define GAN_FAST_BIAS_ACT_PASSES(dtype, S)                                   \
  GAN_FAST_BIAS_ACT(forward, 0, planar, true, dtype, S)                      \
  GAN_FAST_BIAS_ACT(forward, 0, interleaved, false, dtype, S)                \
  GAN_FAST_BIAS_ACT(backward, 1, planar, true, dtype, S)                     \
  GAN_FAST_BIAS_ACT(backward, 1, interleaved, false, dtype, S)               \
  GAN_FAST_BIAS_ACT(double_backward, 2, planar, true, dtype, S)              \
  GAN_FAST_BIAS_ACT(double_backward, 2, interleaved, false, dtype, S)

GAN_FAST_BIAS_ACT_PASSES(f32, float)
GAN_FAST_BIAS_ACT_PASSES(f64, double)
GAN_FAST_BIAS_ACT_PASSES(bf16, gan_fast::cuda::BFloat16)
GAN_FAST_BIAS_ACT_PASSES(f16, gan_fast::cuda::Half)
