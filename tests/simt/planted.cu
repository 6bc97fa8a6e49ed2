// Kernels for the emulator's own tests: one that is right, and variants of it with one fault each.
#include "common/cuda/device.h"

struct SumArguments {
  const float* x;
  float* partial;
  unsigned* ticket;
  float* out;
  long long n;
};

enum Fault { kNone, kNoBarrier, kReadPastEnd, kSharedRace, kUnwritten, kPastShared, kUnwrittenShared };

// out = sum x: lanes by shuffle, warps by shared memory, blocks by the last one to take a ticket.
template <class T, int fault>
__device__ void sum(const SumArguments& a) {
  __shared__ T warp_sum[8];
  __shared__ bool last;
  const int t = threadIdx.x, lane = t % 32, warp = t / 32;
  T v = 0;
  for (long long i = blockIdx.x * (long long)blockDim.x + t; i < a.n + (fault == kReadPastEnd); i += (long long)gridDim.x * blockDim.x) v += a.x[i];
  for (int d = 16; d; d /= 2) v += __shfl_down_sync(0xffffffffu, v, d);
  if (lane == 0 && !(fault == kUnwrittenShared && warp == 3)) warp_sum[fault == kSharedRace ? warp / 2 : warp + 8 * (fault == kPastShared)] = v;
  if (fault != kNoBarrier) __syncthreads();
  if (t == 0) {
    T total = 0;
    for (int w = 0; w < 8; ++w) total += warp_sum[w];
    a.partial[blockIdx.x] = total;
    __threadfence();
    last = atomicInc(a.ticket, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (!last || t) return;
  T total = 0;
  for (unsigned b = 0; b < gridDim.x; ++b) total += a.partial[b];
  if (fault != kUnwritten) *a.out = total;
}

#define SUM(name, fault) \
  extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ SumArguments a) { sum<float, fault>(a); }
SUM(sum_clean, kNone)
SUM(sum_no_barrier, kNoBarrier)
SUM(sum_read_past_end, kReadPastEnd)
SUM(sum_shared_race, kSharedRace)
SUM(sum_unwritten, kUnwritten)
SUM(sum_past_shared, kPastShared)
SUM(sum_unwritten_shared, kUnwrittenShared)

// Lanes hand values to their neighbour through shared memory around a shuffle, which orders no memory: __syncwarp must.
template <bool barrier>
__device__ void neighbour(const float* x, float* out) {
  __shared__ float s[32];
  const int lane = threadIdx.x;
  s[lane] = x[lane];
  const float other = __shfl_xor_sync(0xffffffffu, x[lane], 1);
  if (barrier) __syncwarp();
  out[lane] = s[(lane + 1) % 32] + 0 * other;
}
extern "C" __global__ void neighbour_clean(const float* x, float* out) { neighbour<true>(x, out); }
extern "C" __global__ void neighbour_no_syncwarp(const float* x, float* out) { neighbour<false>(x, out); }

// Threads past the end return before the barrier; the rest still meet.
extern "C" __global__ void early_return(const float* x, float* out, int n) {
  __shared__ float s[256];
  const int t = threadIdx.x;
  if (t >= n) return;
  s[t] = x[t];
  __syncthreads();
  out[t] = s[n - 1 - t];
}

// Only half of the threads reach the barrier, the other half waits in a shuffle.
extern "C" __global__ void divergent_barrier(float* out) {
  if (threadIdx.x % 2) __syncthreads();
  else out[threadIdx.x] = __shfl_sync(0xffffffffu, 1.0f, 0);
}

extern "C" __global__ void endless(volatile int* flag) {
  while (*flag == 0) {
  }
}

// A shuffle that reads a lane which does not take part.
extern "C" __global__ void absent_lane(float* out) {
  if (threadIdx.x < 16) out[threadIdx.x] = __shfl_sync(0x0000ffffu, 1.0f, threadIdx.x + 8);
}

extern "C" __global__ void misaligned(const float* x, float* out) {
  const float4 v = reinterpret_cast<const float4*>(x)[threadIdx.x];
  out[threadIdx.x] = v.x + v.y + v.z + v.w;
}

struct CheckArguments {
  int* out_int;
  unsigned* out_unsigned;
  float* out_float;
  double* out_double;
  unsigned long long* out_long;
};

// Every shuffle, vote and atomic once; dynamic shared memory; a three-dimensional block.
extern "C" __global__ void vocabulary(CheckArguments a) {
  GAN_FAST_DYNAMIC_SHARED(int, s);
  const unsigned full = 0xffffffffu;
  const int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z), lane = t % 32;
  s[t] = t;
  __syncthreads();
  int* o = a.out_int + 16 * t;
  o[0] = __shfl_sync(full, t, 3);
  o[1] = __shfl_sync(full, t, 1, 8);
  o[2] = __shfl_up_sync(full, t, 2);
  o[3] = __shfl_down_sync(full, t, 5, 16);
  o[4] = __shfl_xor_sync(full, t, 9);
  o[5] = (int)__shfl_xor_sync(full, (double)t, 1);
  o[6] = (int)__shfl_xor_sync(full, (unsigned char)lane, 2);
  o[7] = (int)__ballot_sync(full, lane % 3 == 0);
  o[8] = __any_sync(full, lane == 7) + 2 * __all_sync(full, lane < 31) + 4 * __all_sync(full, lane < 32);
  o[9] = lane < 8 ? __shfl_xor_sync(0xffu, t, 4) : __shfl_xor_sync(0xffffff00u, t, 1);
  o[10] = __syncthreads_count(t % 2);
  o[11] = __syncthreads_or(t == 5) + 2 * __syncthreads_and(t != 5);
  o[12] = __reduce_add_sync(full, t);
  o[13] = s[(t + 1) % (blockDim.x * blockDim.y * blockDim.z)];
  o[14] = (int)(blockIdx.x + 10 * blockIdx.y + 100 * blockIdx.z);
  o[15] = min(max(t, 3), 9) + __popc(t) + __clz(t) + __ffs(t);
  atomicAdd(a.out_int + 16 * 64, 1);
  atomicMin(a.out_int + 16 * 64 + 1, -t);
  atomicMax(a.out_int + 16 * 64 + 2, t);
  atomicInc(a.out_unsigned, 4);
  atomicDec(a.out_unsigned + 1, 4);
  atomicOr(a.out_unsigned + 2, 1u << lane);
  atomicExch(a.out_unsigned + 3, 7u);
  atomicCAS(a.out_unsigned + 4, 0u, 9u);
  atomicAdd(a.out_float, 0.5f);
  atomicAdd(a.out_double, 0.25);
  atomicAdd(a.out_long, 1ull << 33);
}
