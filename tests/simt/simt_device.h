// What CUDA declares for device code without a header, for the emulator (included by simt.h).
#pragma once

#ifndef GAN_FAST_SIMT
#include "simt.h"
#endif

// Barriers.
inline void __syncthreads() { simt::visible_block_meet(simt::block_barrier, simt::kBlockBarrier); }
inline int __syncthreads_count(int predicate) {
  return (int)simt::visible_block_meet(simt::block_barrier, simt::kBlockBarrier, predicate != 0);
}
inline int __syncthreads_or(int predicate) { return __syncthreads_count(predicate) != 0; }
inline int __syncthreads_and(int predicate) { return __syncthreads_count(predicate == 0) == 0; }
inline void __syncwarp(uint32_t mask = 0xffffffffu) {
  simt::Warp& w = simt::my_warp();
  simt::Seat& s = simt::seat_of(w, mask);
  std::atomic<uint32_t>& edge = s.visible[simt::seat_phase(s) & 1];
  edge.fetch_add(1, std::memory_order_acq_rel);
  simt::warp_meet(w, s, simt::thread_state.data(), mask, simt::kWarpBarrier, 0);
  (void)edge.load(std::memory_order_acquire);
}
// Order on the real memory, but no edge for TSan: a fence synchronises nothing by itself.
inline void __threadfence() { std::atomic_signal_fence(std::memory_order_seq_cst); }
inline void __threadfence_block() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// Shuffles and votes.
template <class T>
T __shfl_sync(uint32_t mask, T v, int source, int width = 32) {
  simt::check_width(width);
  const unsigned lane = simt::linear_thread % 32, first = lane & ~(unsigned)(width - 1);
  return simt::shuffle(mask, v, first + ((unsigned)source & (unsigned)(width - 1)));
}
template <class T>
T __shfl_up_sync(uint32_t mask, T v, unsigned delta, int width = 32) {
  simt::check_width(width);
  const unsigned lane = simt::linear_thread % 32, first = lane & ~(unsigned)(width - 1);
  return simt::shuffle(mask, v, lane >= first + delta ? lane - delta : lane);
}
template <class T>
T __shfl_down_sync(uint32_t mask, T v, unsigned delta, int width = 32) {
  simt::check_width(width);
  const unsigned lane = simt::linear_thread % 32, first = lane & ~(unsigned)(width - 1);
  return simt::shuffle(mask, v, lane - first + delta < (unsigned)width ? lane + delta : lane);
}
template <class T>
T __shfl_xor_sync(uint32_t mask, T v, int lane_mask, int width = 32) {
  simt::check_width(width);
  const unsigned lane = simt::linear_thread % 32, last = lane | (unsigned)(width - 1), source = lane ^ (unsigned)lane_mask;
  return simt::shuffle(mask, v, source <= last ? source : lane);
}
inline unsigned __ballot_sync(uint32_t mask, int predicate) {
  return simt::gather<int>(mask, predicate, simt::kVote, 0, [](int a, int p, unsigned lane) { return a | (int)((unsigned)(p != 0) << lane); });
}
inline int __any_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(uint32_t mask, int predicate) { return __ballot_sync(mask, predicate == 0) == 0; }
template <class T>
T __reduce_add_sync(uint32_t mask, T v) {
  return simt::gather<T>(mask, v, simt::kReduce, T{0}, [](T a, T b, unsigned) { return (T)((unsigned)a + (unsigned)b); });
}
template <class T>
T __reduce_min_sync(uint32_t mask, T v) {
  return simt::gather<T>(mask, v, simt::kReduce, v, [](T a, T b, unsigned) { return a < b ? a : b; });
}
template <class T>
T __reduce_max_sync(uint32_t mask, T v) {
  return simt::gather<T>(mask, v, simt::kReduce, v, [](T a, T b, unsigned) { return a > b ? a : b; });
}

// Atomics: relaxed, as on the card; each returns the old value.
namespace simt {
template <class T, class F>
T read_modify_write(T* address, F next) {
  std::atomic_ref<T> cell(*address);
  T old = cell.load(std::memory_order_relaxed);
  while (!cell.compare_exchange_weak(old, next(old), std::memory_order_relaxed)) {
  }
  return old;
}
template <class T>
inline constexpr bool adds = std::is_same_v<T, int> || std::is_same_v<T, unsigned> || std::is_same_v<T, unsigned long long> ||
                             std::is_same_v<T, float> || std::is_same_v<T, double>;
template <class T>
inline constexpr bool is_word = std::is_integral_v<T> && sizeof(T) >= 4;
}  // namespace simt
template <class T>
T atomicAdd(T* address, std::type_identity_t<T> v) {
  static_assert(simt::adds<T>, "CUDA has no atomicAdd of this type");
  if constexpr (std::is_integral_v<T>)
    return std::atomic_ref<T>(*address).fetch_add(v, std::memory_order_relaxed);
  else
    return simt::read_modify_write(address, [&](T old) { return old + v; });
}
template <class T>
T atomicSub(T* address, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T> && sizeof(T) == 4, "CUDA has no atomicSub of this type");
  return std::atomic_ref<T>(*address).fetch_sub(v, std::memory_order_relaxed);
}
template <class T>
T atomicExch(T* address, std::type_identity_t<T> v) {
  static_assert(simt::adds<T> && !std::is_same_v<T, double>, "CUDA has no atomicExch of this type");
  return std::atomic_ref<T>(*address).exchange(v, std::memory_order_relaxed);
}
template <class T>
T atomicCAS(T* address, std::type_identity_t<T> compare, std::type_identity_t<T> v) {
  static_assert(std::is_integral_v<T>, "CUDA has no atomicCAS of this type");
  std::atomic_ref<T>(*address).compare_exchange_strong(compare, v, std::memory_order_relaxed);
  return compare;
}
#define SIMT_ATOMIC(name, expression)                                                        \
  template <class T>                                                                         \
  T name(T* address, std::type_identity_t<T> v) {                                            \
    static_assert(simt::is_word<T>, "CUDA has no " #name " of this type");                   \
    return simt::read_modify_write(address, [&](T old) -> T { return expression; });         \
  }
SIMT_ATOMIC(atomicMin, old < v ? old : v)
SIMT_ATOMIC(atomicMax, old > v ? old : v)
SIMT_ATOMIC(atomicAnd, old & v)
SIMT_ATOMIC(atomicOr, old | v)
SIMT_ATOMIC(atomicXor, old ^ v)
#undef SIMT_ATOMIC
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return simt::read_modify_write(address, [&](unsigned old) { return old >= limit ? 0u : old + 1; });
}
inline unsigned atomicDec(unsigned* address, unsigned limit) {
  return simt::read_modify_write(address, [&](unsigned old) { return old == 0 || old > limit ? limit : old - 1; });
}

// Arithmetic. Fast intrinsics compute the plain function: their error on a card is for the compile checks and the tolerance table.
inline int __float_as_int(float v) { return simt::from_bits<int>(simt::to_bits(v)); }
inline unsigned __float_as_uint(float v) { return simt::from_bits<unsigned>(simt::to_bits(v)); }
inline float __int_as_float(int v) { return simt::from_bits<float>(simt::to_bits(v)); }
inline float __uint_as_float(unsigned v) { return simt::from_bits<float>(simt::to_bits(v)); }
inline long long __double_as_longlong(double v) { return simt::from_bits<long long>(simt::to_bits(v)); }
inline double __longlong_as_double(long long v) { return simt::from_bits<double>(simt::to_bits(v)); }
inline float __expf(float v) { return ::expf(v); }
inline float __logf(float v) { return ::logf(v); }
inline float __fdividef(float a, float b) { return a / b; }
inline float __frcp_rn(float v) { return 1.0f / v; }
inline float __fmaf_rn(float a, float b, float c) { return ::fmaf(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return ::fma(a, b, c); }
inline float rsqrtf(float v) { return 1.0f / ::sqrtf(v); }
inline double rsqrt(double v) { return 1.0 / ::sqrt(v); }
inline int __popc(unsigned v) { return __builtin_popcount(v); }
inline int __clz(int v) { return v ? __builtin_clz((unsigned)v) : 32; }
inline int __ffs(int v) { return __builtin_ffs(v); }
inline int __float2int_rn(float v) { return (int)::rintf(v); }
template <class T>
T __ldg(const T* p) { return *p; }
template <class T>
T __ldcs(const T* p) { return *p; }
template <class T>
T __ldcg(const T* p) { return *p; }
template <class T>
void __stcs(T* p, std::type_identity_t<T> v) { *p = v; }
template <class T>
void __stcg(T* p, std::type_identity_t<T> v) { *p = v; }
using std::max;
using std::min;
using std::isinf;
using std::isnan;

// `extern __shared__` cannot be emulated by a macro: kernels ask for dynamic shared memory through GAN_FAST_DYNAMIC_SHARED.
namespace simt {
inline void* dynamic_shared() { return dynamic_shared_memory; }
}  // namespace simt
