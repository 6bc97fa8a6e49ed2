// bias_act on the card: bias_act.h says what it is, bias_act_arguments.h how elements are shared between warps.
//
// Kernels: bias_act_{forward,backward,double_backward}_{planar,interleaved}_<dtype>.
//
// What must move is every big tensor once, and 80 % of a copy of as many bytes is the aim. On an H100, at N C H W = 16 128 256 256, lrelu
// took 1.08 to 1.16 times a copy's time, and an epilogue (scale, noise, clamp) in bf16 channels_last 1.22 times forward, but 750 us for
// 541 with its backward. Instructions were not the limit of that (41 an element, 28.7 T of them a second): with one pixel of a lane on its
// way, 512 threads of a multiprocessor have 24 KB in flight, and waited for memory and for the shuffles of the noise's sums in turn. So an
// interleaved unit reads two pixels a lane before it computes anything (48 KB; 32 instructions an element) and sums both side by side,
// which no card has timed.
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

template <class S, int V, class T>
__device__ __forceinline__ void write(void* target, long long place, const T (&in)[V]) {
  if (target != nullptr) store<S, V>(static_cast<S*>(target) + place, 0, in);
}

template <class T, int V>
struct PacketParameters {
  T scale[V], bias[V], tscale[V], tbias[V];
};

// The inputs from `place` on, a packet of V elements or one element by itself, as memory has them: what is read before anything is
// computed and written, for the compiler may not read ahead of a write.
template <class S, int V, int kOrder>
struct PacketInputs {
  Raw<S, V> v, x, y, t;

  __device__ __forceinline__ PacketInputs(const BiasActArguments& a, long long place) : PacketInputs() {
    read(a.v, place, v);
    if constexpr (kOrder > 0) read(a.x, place, x);
    if constexpr (kOrder > 0) read(a.y, place, y);
    if constexpr (kOrder > 1) read(a.t, place, t);
  }
  __device__ __forceinline__ PacketInputs() : v{}, x{}, y{}, t{} {}

 private:
  __device__ __forceinline__ static void read(const void* source, long long place, Raw<S, V>& to) {
    if (source != nullptr) to = *reinterpret_cast<const Raw<S, V>*>(static_cast<const S*>(source) + place);
  }
};

// A packet's worth of work at `place`; adds to the sums of its elements.
template <class S, int V, int kOrder, class F, class T>
__device__ __forceinline__ void packet(
    const BiasActArguments& a, const F& f, const PacketInputs<S, V, kOrder>& in, long long place, const PacketParameters<T, V>& p,
    T (&sum)[V], T (&scale_sum)[V]) {
  T v[V], x[V], y[V], t[V], out[V], out2[V];
  in.v.widen_to(v);
  in.x.widen_to(x);
  in.y.widen_to(y);
  in.t.widen_to(t);
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
      const long long place = row * a.pixels + i;
      packet<S, V, kOrder>(a, f, PacketInputs<S, V, kOrder>(a, place), place, p, sum, scale_sum);
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

// Sums over the lanes whose numbers differ in bits from `low` up to below `high`, in every lane of them; N side by side, for a shuffle
// takes longer than what is between two.
template <int N, class T>
__device__ __forceinline__ void sum_between(T (&v)[N], int low, int high) {
#pragma unroll 1
  for (int d = low; d < high; d *= 2) {
    T other[N];
#pragma unroll
    for (int j = 0; j < N; ++j) other[j] = __shfl_xor_sync(kFullMask, v[j], d);
#pragma unroll
    for (int j = 0; j < N; ++j) v[j] += other[j];
  }
}

template <class S, int V, int kOrder, class F>
__device__ __forceinline__ void interleaved_unit(const BiasActArguments& a, const F& f, long long unit, int lane) {
  using T = typename Accumulate<S>::T;
  const long long strip = unit % a.strips, tile = unit / a.strips % a.tiles, n = unit / a.strips / a.tiles;
  if (n >= a.samples) return;
  const long long begin = tile * a.tile, end = begin + a.tile < a.pixels ? begin + a.tile : a.pixels;
  const long long c = (strip * a.lanes + lane % a.lanes) * V;
  const bool inside = c < a.channels;
  const int at_a_time = kWarp / a.lanes, beside = lane / a.lanes;
  T scale[V], bias[V], tscale[V], tbias[V], sum[V] = {}, scale_sum[V] = {};
#pragma unroll
  for (int j = 0; j < V; ++j) {
    scale[j] = inside ? value_at<T>(a.scale, n * a.scale_stride + c + j) : T(0);
    bias[j] = inside ? value_at<T>(a.bias, c + j) : T(0);
    tscale[j] = kOrder > 1 && inside ? value_at<T>(a.tscale, n * a.tscale_stride + c + j) : T(0);
    tbias[j] = kOrder > 1 && inside ? value_at<T>(a.tbias, c + j) : T(0);
  }
  // Pixels of a lane in a turn: with one, a warp would wait for memory between any two. All lanes take every turn, for they meet in the
  // sums over channels.
  constexpr int kPixels = kOrder > 1 ? 1 : 2;
#pragma unroll 1
  for (long long first = begin; first < end; first += kPixels * at_a_time) {
    PacketInputs<S, V, kOrder> in[kPixels];
    T noise[kPixels], tnoise[kPixels], over_channels[kPixels];
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const long long i = first + k * at_a_time + beside;
      noise[k] = tnoise[k] = over_channels[k] = 0;
      if (inside && i < end) {
        in[k] = PacketInputs<S, V, kOrder>(a, (n * a.pixels + i) * a.channels + c);
        noise[k] = value_at<T>(a.noise, n * a.noise_stride + i);
        if constexpr (kOrder > 1) tnoise[k] = value_at<T>(a.tnoise, n * a.tnoise_stride + i);
      }
    }
#pragma unroll
    for (int k = 0; k < kPixels; ++k) {
      const long long i = first + k * at_a_time + beside;
      if (!inside || i >= end) continue;
      PacketParameters<T, V> p;
      T one[V] = {};
#pragma unroll
      for (int j = 0; j < V; ++j) {
        p.scale[j] = scale[j];
        p.bias[j] = bias[j] + noise[k];
        p.tscale[j] = tscale[j];
        p.tbias[j] = tbias[j] + tnoise[k];
      }
      packet<S, V, kOrder>(a, f, in[k], (n * a.pixels + i) * a.channels + c, p, one, scale_sum);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum[j] += one[j];
        over_channels[k] += one[j];
      }
    }
    if (kOrder > 0 && a.noise_sums) {
      sum_between(over_channels, 1, a.lanes);
#pragma unroll
      for (int k = 0; k < kPixels; ++k) {
        const long long i = first + k * at_a_time + beside;
        if (lane % a.lanes == 0 && i < end) static_cast<T*>(a.noise_sums)[(n * a.strips + strip) * a.pixels + i] = over_channels[k];
      }
    }
  }
  if constexpr (kOrder > 0) {
    sum_between(sum, a.lanes, kWarp);
    sum_between(scale_sum, a.lanes, kWarp);
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
