// The gradient penalty on the card: gradient_penalty.h says what it is, gradient_penalty_arguments.h how rows are shared.
//
// Kernels: gradient_penalty_norms_<dtype> reads g once and gives the squared norms and the penalty, gradient_penalty_scale_<dtype> reads
// it once and writes a(n_i) g_i.
#include "common/cuda/device.h"
#include "gradient_penalty/gradient_penalty.h"
#include "gradient_penalty/gradient_penalty_arguments.h"

namespace gan_fast::cuda {

// A thread's place: it works on elements (or packets) thread, thread + threads, ... of a row.
struct RowShare {
  long long row, thread, threads;
};

__device__ __forceinline__ RowShare row_share(const GradientPenaltyArguments& a) {
  if (a.warp_units) return {(long long)blockIdx.x * kWarps + threadIdx.x / kWarp, (long long)(threadIdx.x % kWarp), kWarp};
  const unsigned row = blockIdx.x / (unsigned)a.parts, part = blockIdx.x % (unsigned)a.parts;
  return {row, (long long)part * kThreads + threadIdx.x, (long long)a.parts * kThreads};
}

// The sum over the block, in the first warp; the order of additions is fixed.
__device__ __forceinline__ double block_sum(double v, double (&scratch)[kWarps]) {
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  v = warp_sum(v);
  if (lane == 0) scratch[warp] = v;
  __syncthreads();
  return warp == 0 ? warp_sum(lane < kWarps ? scratch[lane] : 0.0) : 0.0;
}

// The sum of squares of a thread's elements. One running sum for each element of a packet: sums in float stay short.
template <class S>
__device__ __forceinline__ double sum_of_squares(const GradientPenaltyArguments& a, const RowShare& share) {
  using T = typename Accumulate<S>::T;
  using M = DeviceMath<T>;
  constexpr int V = kVector<S>;
  const S* x = static_cast<const S*>(a.x) + share.row * a.x_stride;
  T sum[V] = {};
  const long long packets = a.vector ? a.inner / V : 0;
#pragma unroll 1
  for (long long i = share.thread; i < packets; i += 2 * share.threads) {
    const bool two = i + share.threads < packets;  // both are read before either is used, to have enough bytes in flight
    T first[V], second[V];
    load<S, V>(x, i, first);
    if (two) load<S, V>(x, i + share.threads, second);
#pragma unroll
    for (int j = 0; j < V; ++j) sum[j] = M::fma(first[j], first[j], sum[j]);
    if (two) {
#pragma unroll
      for (int j = 0; j < V; ++j) sum[j] = M::fma(second[j], second[j], sum[j]);
    }
  }
#pragma unroll 1
  for (long long i = packets * V + share.thread; i < a.inner; i += share.threads) {
    const T v = widen(x[i]);
    sum[0] = M::fma(v, v, sum[0]);
  }
  double total = 0;
#pragma unroll
  for (int j = 0; j < V; ++j) total += (double)sum[j];
  return total;
}

struct NormScratch {
  double warp[kWarps];
  bool last;
};

template <class S>
__device__ __forceinline__ void norms(const GradientPenaltyArguments& a, NormScratch& scratch) {
  using T = typename Accumulate<S>::T;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const RowShare share = row_share(a);
  const double squares = share.row < a.rows ? sum_of_squares<S>(a, share) : 0.0;
  if (a.warp_units) {
    const double total = warp_sum(squares);
    if (lane == 0 && share.row < a.rows) a.partials[share.row] = total;
  } else {
    const double total = block_sum(squares, scratch.warp);
    if (threadIdx.x == 0 && share.row < a.rows) a.partials[blockIdx.x] = total;
  }
  __syncthreads();
  // The last block to arrive adds up, always in the same order. The counter wraps to zero by itself. The fences make every block's
  // partial sums, which happen before its ticket, visible to the block that draws the last one.
  if (threadIdx.x == 0) {
    __threadfence();
    scratch.last = atomicInc(a.ticket, gridDim.x - 1) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (!scratch.last) return;
  const NormPenalty<double> penalty(a.kind, a.center, a.factor);
  T* out = static_cast<T*>(a.norms);
  double sum = 0;
  if (a.parts == 1) {
#pragma unroll 1
    for (long long row = threadIdx.x; row < a.rows; row += kThreads) {
      const double n = a.partials[row];
      out[row] = (T)n;
      sum += penalty.value(n);
    }
  } else {
#pragma unroll 1
    for (long long row = warp; row < a.rows; row += kWarps) {
      double n = 0;
      for (int part = lane; part < a.parts; part += kWarp) n += a.partials[row * a.parts + part];
      n = warp_sum(n);
      if (lane == 0) {
        out[row] = (T)n;
        sum += penalty.value(n);
      }
    }
  }
  sum = block_sum(sum, scratch.warp);
  // the mean over no samples is NaN
  if (threadIdx.x == 0) *static_cast<T*>(a.penalty) = (T)(a.rows ? sum : 0.0 * a.factor);
}

template <class S>
__device__ __forceinline__ void scale(const GradientPenaltyArguments& a) {
  using T = typename Accumulate<S>::T;
  constexpr int V = kVector<S>;
  const RowShare share = row_share(a);
  if (share.row >= a.rows) return;
  const S* x = static_cast<const S*>(a.x) + share.row * a.x_stride;
  S* out = static_cast<S*>(a.out) + share.row * a.inner;
  const T n = static_cast<const T*>(a.norms)[share.row];
  const T factor = NormPenalty<T>(a.kind, a.center, a.factor).coefficient(n) * *static_cast<const T*>(a.grad_output);
  const long long packets = a.vector ? a.inner / V : 0;
#pragma unroll 1
  for (long long i = share.thread; i < packets; i += share.threads) {
    T v[V];
    load<S, V>(x, i, v);
#pragma unroll
    for (int j = 0; j < V; ++j) v[j] *= factor;
    store<S, V>(out, i, v);
  }
#pragma unroll 1
  for (long long i = packets * V + share.thread; i < a.inner; i += share.threads) narrow(widen(x[i]) * factor, out[i]);
}

}  // namespace gan_fast::cuda

#define GAN_FAST_GRADIENT_PENALTY(dtype, S)                                                                                          \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads, gan_fast::cuda::kMinBlocks)                                 \
      gradient_penalty_norms_##dtype(const __grid_constant__ gan_fast::cuda::GradientPenaltyArguments a) {                           \
    __shared__ gan_fast::cuda::NormScratch scratch;                                                                                  \
    gan_fast::cuda::norms<S>(a, scratch);                                                                                            \
  }                                                                                                                                  \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kThreads, gan_fast::cuda::kMinBlocks)                                 \
      gradient_penalty_scale_##dtype(const __grid_constant__ gan_fast::cuda::GradientPenaltyArguments a) {                           \
    gan_fast::cuda::scale<S>(a);                                                                                                     \
  }

GAN_FAST_GRADIENT_PENALTY(f32, float)
GAN_FAST_GRADIENT_PENALTY(f64, double)
GAN_FAST_GRADIENT_PENALTY(bf16, gan_fast::cuda::BFloat16)
GAN_FAST_GRADIENT_PENALTY(f16, gan_fast::cuda::Half)
