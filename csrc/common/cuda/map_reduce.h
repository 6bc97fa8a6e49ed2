// The loop of every loss on the card: evaluate a term on a range of a segment, write what is asked for, sum the rest.
//
//   reduce<S, Make>        sums; with_gradient also writes gradients and sums derivatives
//   map<S, Make>           writes values or gradients
//
// S is the storage type. Make describes the op:
//   term<M>(arguments, k)  segment k's term, a functor (x, y, p, value&, derivative&) over the arithmetic M with static kUsesY, kUsesP
//   Result<S>              the type of the loss and of the gradient that arrives for it
//   kShifts                the term may depend on the mean of another segment
//   kSegmentSums           a launch may be asked for means and sums of derivatives by segment
#pragma once

#include "common/cuda/device.h"
#include "common/cuda/map_reduce_arguments.h"

namespace gan_fast::cuda {

// A thread's running sums.
template <class T>
struct Running {
  T value = 0, derivative = 0, x = 0, x_sign = 0, y = 0, y_sign = 0;
};

template <class T>
__device__ __forceinline__ T sign(T v) {
  return v > T(0) ? T(1) : v < T(0) ? T(-1) : v;  // NaN stays
}

// The sample weight of element i, one for every `inner` elements. An integer division is a call that costs more than the rest of the
// term; the product with 1 / inner is off by one at most for i < 2^52.
template <class T>
__device__ __forceinline__ T sample_weight(const Segment& s, double inverse_inner, long long i) {
  long long sample = (long long)((double)i * inverse_inner);
  const long long rest = i - sample * s.inner;
  sample += rest >= s.inner ? 1 : rest < 0 ? -1 : 0;
  return static_cast<const T*>(s.w)[sample];
}

// V consecutive elements. x and y are read ahead, as bits, for they are what most losses wait for; the rest, where there is any, when it
// is needed.
template <class S, int V>
struct Inputs {
  using T = typename Accumulate<S>::T;
  Packet<S, V> x, y;
  long long packet;

  template <class F>
  __device__ __forceinline__ void read(const Segment& s, long long at) {
    packet = at;
    x = static_cast<const Packet<S, V>*>(s.x)[packet];
    if constexpr (F::kUsesY) y = static_cast<const Packet<S, V>*>(s.y)[packet];
  }

  // value = w v(x, y, p), derivative = w c v'(x, y, p)
  template <class F>
  __device__ __forceinline__ void evaluate(const F& f, const Segment& s, const SegmentWork& work, T (&value)[V], T (&derivative)[V]) const {
    T p[V];
#pragma unroll
    for (int j = 0; j < V; ++j) p[j] = T(1);
    if constexpr (F::kUsesP) {
      if (const void* second = opaque(s.p)) load<S, V>(second, packet, p);
    }
#pragma unroll
    for (int j = 0; j < V; ++j) {
      T other = 0;
      if constexpr (F::kUsesY) other = widen(y.element[j]);
      f(widen(x.element[j]), other, p[j], value[j], derivative[j]);
    }
    if (const void* w = opaque(s.w)) {
      // Weights are of type T, so as many elements may take two loads. Where a sample has one weight, a packet lies within a sample: the
      // host allows packets only where `inner` is a multiple of their size.
      constexpr int kPart = V > 1 ? kVector<T> : 1;
#pragma unroll
      for (int part = 0; part < V / kPart; ++part) {
        T some[kPart];
        if (V > 1 && s.inner == 1) {
          load<T, kPart>(w, packet * (V / kPart) + part, some);
        } else {
          const T one = sample_weight<T>(s, work.inverse_inner, packet * V);
#pragma unroll
          for (int j = 0; j < kPart; ++j) some[j] = one;
        }
#pragma unroll
        for (int j = 0; j < kPart; ++j) {
          value[part * kPart + j] *= some[j];
          derivative[part * kPart + j] *= some[j];
        }
      }
    }
    if (const void* cotangent = opaque(s.c)) {
      T c[V];
      load<S, V>(cotangent, packet, c);
#pragma unroll
      for (int j = 0; j < V; ++j) derivative[j] *= c[j];
    }
  }
};

// Calls each(inputs) for the packets of segment s that belong to thread `thread` of `threads`: two are read before either is used, to
// have enough bytes in flight. Elements beyond the last whole packet, and segments not aligned for packets, go one by one.
template <class S, class F, class Each>
__device__ __forceinline__ void for_elements(const Segment& s, const SegmentWork& work, long long thread, long long threads, const Each& each) {
  constexpr int V = kVector<S>;
  const long long packets = work.vector ? s.n / V : 0;
#pragma unroll 1
  for (long long i = thread; i < packets; i += 2 * threads) {
    const bool two = i + threads < packets;
    Inputs<S, V> first, second;
    first.template read<F>(s, i);
    if (two) second.template read<F>(s, i + threads);
    each(first);
    if (two) each(second);
  }
#pragma unroll 1
  for (long long i = packets * V + thread; i < s.n; i += threads) {
    Inputs<S, 1> in;
    in.template read<F>(s, i);
    each(in);
  }
}

// The segment of a unit, and the unit's place in it.
struct Place {
  int k;           // segment, or -1 for a unit without work
  int unit, units;
};
template <class Arguments>
__device__ __forceinline__ Place find_place(const Arguments& a, int unit) {
  int first = 0;
#pragma unroll 1
  for (int k = 0; k < a.count; ++k) {
    const int end = a.work[k].unit_end;
    if (unit < end) return {k, unit - first, end - first};
    first = end;
  }
  return {-1, 0, 0};
}

// The gradient of segment k is derivative * factor + offset.
template <class R, class T, bool kShifts, class Arguments>
__device__ __forceinline__ void gradient_numbers(const Arguments& a, int k, T& factor, T& offset) {
  const Segment& s = a.segment[k];
  const double g = a.grad_output ? (double)widen(*static_cast<const R*>(a.grad_output)) : 1.0;
  factor = (T)(s.factor * g);
  offset = (T)0;
  // A logit also moves its side's mean, and with it the terms of the other side: their derivatives' sum, with a minus.
  if (kShifts && a.offsets) {
    const SegmentWork& work = a.work[k];
    offset = (T)(-a.offsets[work.other] * work.other_factor * g * work.inverse_n);
  }
}

template <class S, class F, int V, class T>
__device__ __forceinline__ void write_gradient(const Segment& s, const T (&gradient)[V], long long packet) {
  store<S, V>(s.grad, packet, gradient);
  if constexpr (F::kUsesY) {
    if (opaque(s.grad2)) {
      T minus[V];
#pragma unroll
      for (int j = 0; j < V; ++j) minus[j] = -gradient[j];
      store<S, V>(s.grad2, packet, minus);
    }
  }
}

template <class S, class Make, class Arguments>
__device__ __forceinline__ void map(const Arguments& a) {
  using T = typename Accumulate<S>::T;
  using F = decltype(Make::template term<DeviceMath<T>>(a, 0));
  const Place place = find_place(a, blockIdx.x);
  if (place.k < 0) return;
  const Segment& s = a.segment[place.k];
  const SegmentWork& work = a.work[place.k];
  const F f = Make::template term<DeviceMath<T>>(a, place.k);
  const long long thread = (long long)place.unit * kThreads + threadIdx.x, threads = (long long)place.units * kThreads;
  if (s.grad) {
    T factor, offset;
    gradient_numbers<typename Make::template Result<S>, T, Make::kShifts>(a, place.k, factor, offset);
    for_elements<S, F>(s, work, thread, threads, [&](const auto& in) {
      constexpr int V = sizeof(in.x) / sizeof(S);
      T value[V], gradient[V];
      in.evaluate(f, s, work, value, gradient);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        gradient[j] *= factor;
        if constexpr (Make::kShifts) gradient[j] += offset;
      }
      write_gradient<S, F, V>(s, gradient, in.packet);
    });
  } else {
    for_elements<S, F>(s, work, thread, threads, [&](const auto& in) {
      constexpr int V = sizeof(in.x) / sizeof(S);
      T value[V], derivative[V];
      in.evaluate(f, s, work, value, derivative);
      store<S, V>(s.value, in.packet, value);
    });
  }
}

// Shared memory of a reduction, declared by the kernel: one copy a kernel.
struct ReduceScratch {
  double value[kSums][kThreads];
  double total[kSums];
  bool last;
};

// total[q] = the sum of v[q] over the block, for q < kCount, in a fixed order: a warp sums one quantity. Ends with a barrier.
template <int kCount>
__device__ __forceinline__ void block_sums(const double (&v)[kCount], ReduceScratch& scratch) {
  static_assert(kCount <= kWarps, "one quantity a warp");
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
#pragma unroll
  for (int q = 0; q < kCount; ++q) scratch.value[q][threadIdx.x] = v[q];
  __syncthreads();
  if (warp < kCount) {
    double sum = 0;
#pragma unroll
    for (int i = 0; i < kWarps; ++i) sum += scratch.value[warp][i * kWarp + lane];
    sum = warp_sum(sum);
    if (lane == 0) scratch.total[warp] = sum;
  }
  __syncthreads();
}

// Adds a unit's sums to the quantities of the whole loss.
template <class Sums>
__device__ __forceinline__ void fold(const SegmentWork& work, const Sums& sums, double (&folded)[kFolded]) {
  const bool fake = work.side != 0;
  folded[0] += sums[0] * work.scale;
  folded[1] += fake ? 0.0 : sums[2];
  folded[2] += fake ? 0.0 : sums[3];
  folded[3] += fake ? sums[2] : sums[4];
  folded[4] += fake ? sums[3] : sums[5];
}

// Means and derivatives by segment, for terms that depend on them.
template <class Arguments>
__device__ __forceinline__ void write_segment_sums(const Arguments& a) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const double* partials = a.target.partials;
#pragma unroll 1
  for (int k = warp; k < a.count; k += kWarps) {
    double x = 0, derivative = 0;
    for (int u = (k ? a.work[k - 1].unit_end : 0) + lane; u < a.work[k].unit_end; u += kWarp) {
      derivative += partials[(long long)u * kSums + 1];
      x += partials[(long long)u * kSums + 2];
    }
    x = warp_sum(x);
    derivative = warp_sum(derivative);
    if (lane == 0) {
      if (a.target.means) a.target.means[a.work[k].index] = x * a.work[k].inverse_n;
      if (a.target.derivatives) a.target.derivatives[a.work[k].index] = derivative;
    }
  }
}

// What the op returns, from the block's total of the folded sums; by one thread. R: type of the loss, T: of the statistics.
template <class R, class T, class Arguments>
__device__ __forceinline__ void write_results(const Arguments& a, const double (&total)[kSums]) {
  const ReduceTarget& target = a.target;
  double folded[kFolded];
#pragma unroll
  for (int q = 0; q < kFolded; ++q) folded[q] = total[q] + (target.carry_in ? target.carry_in[q] : 0.0);
#pragma unroll 1
  for (int k = 0; k < a.count; ++k)
    if (a.segment[k].n == 0) folded[0] += 0.0 * a.work[k].scale;  // nobody summed it; the mean of nothing is NaN
  if (target.carry_out) {
#pragma unroll
    for (int q = 0; q < kFolded; ++q) target.carry_out[q] = folded[q];
    return;
  }
  if (target.loss) narrow((T)folded[0], *static_cast<R*>(target.loss));
  if (target.stats) {
    T* out = static_cast<T*>(target.stats);
    out[0] = (T)folded[0];
    out[1] = (T)(folded[1] * target.inverse_real_count);
    out[2] = (T)(folded[3] * target.inverse_fake_count);
    out[3] = (T)(folded[2] * target.inverse_real_count);
    out[4] = (T)(folded[4] * target.inverse_fake_count);
  }
}

template <class S, class Make, bool kGradient, class Arguments>
__device__ __forceinline__ void reduce(const Arguments& a, ReduceScratch& scratch) {
  using T = typename Accumulate<S>::T;
  using F = decltype(Make::template term<DeviceMath<T>>(a, 0));
  const ReduceTarget& target = a.target;
  const int size = a.warp_units ? kWarp : kThreads;
  const Place place = find_place(a, a.warp_units ? (int)threadIdx.x / kWarp : (int)blockIdx.x);
  const bool stats = target.stats || target.carry_out || target.means;
  Running<T> sum;
  if (place.k >= 0) {
    const Segment& s = a.segment[place.k];
    const SegmentWork& work = a.work[place.k];
    const F f = Make::template term<DeviceMath<T>>(a, place.k);
    const long long thread = (long long)place.unit * size + (int)threadIdx.x % size;
    [[maybe_unused]] T factor = 1, offset = 0;
    if constexpr (kGradient) gradient_numbers<typename Make::template Result<S>, T, false>(a, place.k, factor, offset);
    for_elements<S, F>(s, work, thread, (long long)place.units * size, [&](const auto& in) {
      constexpr int V = sizeof(in.x) / sizeof(S);
      T value[V], derivative[V];
      in.evaluate(f, s, work, value, derivative);
#pragma unroll
      for (int j = 0; j < V; ++j) {
        sum.value += value[j];
        if constexpr (kGradient) sum.derivative += derivative[j];
      }
      if (opaque(stats)) {
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const T x = widen(in.x.element[j]);
          sum.x += x;
          sum.x_sign += sign(x);
          if constexpr (F::kUsesY) {
            const T y = widen(in.y.element[j]);
            sum.y += y;
            sum.y_sign += sign(y);
          }
        }
      }
      if constexpr (kGradient) {
        if (opaque(s.grad)) {
#pragma unroll
          for (int j = 0; j < V; ++j) derivative[j] *= factor;
          write_gradient<S, F, V>(s, derivative, in.packet);
        }
      }
    });
  }
  const double sums[kSums] = {(double)sum.value,  (double)sum.derivative, (double)sum.x,
                              (double)sum.x_sign, (double)sum.y,          (double)sum.y_sign};
  double folded[kFolded] = {};
  if (a.warp_units) {
    if (place.k >= 0) fold(a.work[place.k], sums, folded);
  } else {
    block_sums(sums, scratch);
    if (threadIdx.x < kSums) target.partials[(long long)blockIdx.x * kSums + threadIdx.x] = scratch.total[threadIdx.x];
    __syncthreads();
    // The last block to arrive adds all partial sums, always in the same order. The counter wraps to zero by itself. The fences make
    // every block's partial sums, which happen before its ticket, visible to the block that draws the last one.
    if (threadIdx.x == 0) {
      __threadfence();
      scratch.last = atomicInc(target.ticket, gridDim.x - 1) == gridDim.x - 1;
      __threadfence();
    }
    __syncthreads();
    if (!scratch.last) return;
    if constexpr (Make::kSegmentSums) write_segment_sums(a);
#pragma unroll 1
    for (int u = threadIdx.x; u < (int)gridDim.x; u += kThreads) {
      const Place unit = find_place(a, u);
      if (unit.k >= 0) fold(a.work[unit.k], target.partials + (long long)u * kSums, folded);
    }
  }
  block_sums(folded, scratch);
  if (threadIdx.x == 0) write_results<typename Make::template Result<S>, T>(a, scratch.total);
}

}  // namespace gan_fast::cuda

// The kernel <op>_map_<dtype>.
#define GAN_FAST_MAP_KERNEL(op, dtype, S, Make, Arguments)                                                                           \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads, gan_fast::cuda::kMinBlocks) op##_map_##dtype(const __grid_constant__ Arguments a) {     \
    gan_fast::cuda::map<S, Make>(a);                                                                                                 \
  }

// The kernels <op>_<what>_<dtype> of one op, what = reduce | reduce_grad | map, for one storage type.
#define GAN_FAST_MAP_REDUCE_KERNELS(op, dtype, S, Make, Arguments)                                                                   \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads, gan_fast::cuda::kMinBlocks) op##_reduce_##dtype(const __grid_constant__ Arguments a) {    \
    __shared__ gan_fast::cuda::ReduceScratch scratch;                                                                                \
    gan_fast::cuda::reduce<S, Make, false>(a, scratch);                                                                              \
  }                                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads, gan_fast::cuda::kMinBlocks)                                                             \
      op##_reduce_grad_##dtype(const __grid_constant__ Arguments a) {                                                                \
    __shared__ gan_fast::cuda::ReduceScratch scratch;                                                                                \
    gan_fast::cuda::reduce<S, Make, true>(a, scratch);                                                                               \
  }                                                                                                                                  \
  GAN_FAST_MAP_KERNEL(op, dtype, S, Make, Arguments)

// ... for every storage type.
#define GAN_FAST_MAP_REDUCE(op, Make, Arguments)                                        \
  GAN_FAST_MAP_REDUCE_KERNELS(op, f32, float, Make, Arguments)                         \
  GAN_FAST_MAP_REDUCE_KERNELS(op, f64, double, Make, Arguments)                        \
  GAN_FAST_MAP_REDUCE_KERNELS(op, bf16, gan_fast::cuda::BFloat16, Make, Arguments)     \
  GAN_FAST_MAP_REDUCE_KERNELS(op, f16, gan_fast::cuda::Half, Make, Arguments)
