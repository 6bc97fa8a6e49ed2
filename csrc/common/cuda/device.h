// Device-side tools every kernel shares: shared memory, 16-bit floats, 16-byte loads and stores, warp sums, fast arithmetic.
//
// Included by .cu files only. It must compile under nvcc, under NVRTC (no system header) and under the SIMT emulator in tests/simt,
// which declares what CUDA declares and defines GAN_FAST_SIMT.
#pragma once

#include "common/math.h"

#if defined(GAN_FAST_SIMT)
#define GAN_FAST_DYNAMIC_SHARED(type, name) type* name = static_cast<type*>(simt::dynamic_shared())
#else
#define GAN_FAST_DYNAMIC_SHARED(type, name)                       \
  extern __shared__ __align__(16) unsigned char dynamic_shared[]; \
  type* name = reinterpret_cast<type*>(dynamic_shared)
#endif

namespace gan_fast::cuda {

constexpr int kWarp = 32;
constexpr unsigned kFullMask = 0xffffffffu;

// The storage types beside float and double, as bits.
struct BFloat16 {
  unsigned short bits;
};
struct Half {
  unsigned short bits;
};

// The type a storage type is computed and summed in.
template <class S>
struct Accumulate {
  using T = float;
};
template <>
struct Accumulate<double> {
  using T = double;
};

__device__ __forceinline__ float widen(float v) { return v; }
__device__ __forceinline__ double widen(double v) { return v; }
__device__ __forceinline__ float widen(BFloat16 v) { return __uint_as_float((unsigned)v.bits << 16); }
__device__ __forceinline__ float widen(Half v) {
#if defined(GAN_FAST_SIMT)
  // Shifted into place the exponent is 112 too small, which a product mends exactly, subnormal numbers included.
  const unsigned magnitude = (unsigned)(v.bits & 0x7fff) << 13, sign = (unsigned)(v.bits & 0x8000) << 16;
  const unsigned finite = __float_as_uint(__uint_as_float(magnitude) * 0x1p112f);
  return __uint_as_float(sign | (magnitude >= 0x7c00u << 13 ? magnitude | 0x7f800000u : finite));
#else
  float out;
  asm("cvt.f32.f16 %0, %1;" : "=f"(out) : "h"(v.bits));
  return out;
#endif
}

// To nearest, ties to even; NaN stays NaN.
__device__ __forceinline__ void narrow(float v, float& out) { out = v; }
__device__ __forceinline__ void narrow(double v, double& out) { out = v; }
__device__ __forceinline__ void narrow(float v, BFloat16& out) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out.bits) : "f"(v));
#else
  const unsigned bits = __float_as_uint(v);
  out.bits = (unsigned short)(v != v ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
}
__device__ __forceinline__ void narrow(float v, Half& out) {
#if defined(GAN_FAST_SIMT)
  const unsigned bits = __float_as_uint(v), sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  unsigned result;
  if (magnitude > 0x7f800000u) {
    result = 0x7fffu;
  } else if (magnitude >= 0x477ff000u) {
    result = 0x7c00u;  // 65520 and above round to infinity
  } else if (magnitude >= 0x38800000u) {
    result = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  } else {
    // Adding 1/2 leaves the subnormal result in the low bits, rounded as the sum is.
    result = __float_as_uint(__uint_as_float(magnitude) + 0.5f) - 0x3f000000u;
  }
  out.bits = (unsigned short)(sign | result);
#else
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out.bits) : "f"(v));
#endif
}

// The pointer itself, but the compiler cannot know that it is the same in every turn of a loop. Without this it makes one copy of the
// loop for each combination of absent inputs, sixteen times the code.
__device__ __forceinline__ const void* opaque(const void* p) {
#if !defined(GAN_FAST_SIMT)
  asm volatile("" : "+l"(p));
#endif
  return p;
}
__device__ __forceinline__ bool opaque(bool flag) {
#if !defined(GAN_FAST_SIMT)
  int word = flag;
  asm volatile("" : "+r"(word));
  flag = word;
#endif
  return flag;
}

// V consecutive elements, moved in one access.
template <class S, int V>
struct alignas(sizeof(S) * V) Packet {
  S element[V];
};
template <class S>
constexpr int kVector = 16 / (int)sizeof(S);

// Two 16-bit elements at a time, the first in the low half of a word: an instruction for each of the two, and one for both back.
__device__ __forceinline__ void widen_pair(unsigned word, BFloat16, float& first, float& second) {
  first = __uint_as_float(word << 16);
  second = __uint_as_float(word & 0xffff0000u);
}
__device__ __forceinline__ void widen_pair(unsigned word, Half, float& first, float& second) {
  first = widen(Half{(unsigned short)(word & 0xffffu)});
  second = widen(Half{(unsigned short)(word >> 16)});
}
template <class S>
__device__ __forceinline__ unsigned narrow_pair(float first, float second, S) {
  S low, high;
  narrow(first, low);
  narrow(second, high);
  return (unsigned)low.bits | (unsigned)high.bits << 16;
}
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
__device__ __forceinline__ unsigned narrow_pair(float first, float second, BFloat16) {
  unsigned word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}
__device__ __forceinline__ unsigned narrow_pair(float first, float second, Half) {
  unsigned word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
  return word;
}
#endif

// A packet as memory has it: words of two elements where they are of 16 bits, so that none is taken apart before it is widened.
template <class S, int V, bool kPairs = sizeof(S) == 2 && V % 2 == 0>
struct Raw {
  Packet<S, V> p;

  template <class T>
  __device__ __forceinline__ void widen_to(T (&out)[V]) const {
#pragma unroll
    for (int j = 0; j < V; ++j) out[j] = widen(p.element[j]);
  }
  template <class T>
  __device__ __forceinline__ void narrow_from(const T (&in)[V]) {
#pragma unroll
    for (int j = 0; j < V; ++j) narrow(in[j], p.element[j]);
  }
};
template <class S, int V>
struct Raw<S, V, true> {
  Packet<unsigned, V / 2> p;

  __device__ __forceinline__ void widen_to(float (&out)[V]) const {
#pragma unroll
    for (int j = 0; j < V; j += 2) widen_pair(p.element[j / 2], S{}, out[j], out[j + 1]);
  }
  __device__ __forceinline__ void narrow_from(const float (&in)[V]) {
#pragma unroll
    for (int j = 0; j < V; j += 2) p.element[j / 2] = narrow_pair(in[j], in[j + 1], S{});
  }
};

template <class S, int V, class T>
__device__ __forceinline__ void load(const void* source, long long packet, T (&out)[V]) {
  const Raw<S, V> raw = static_cast<const Raw<S, V>*>(source)[packet];
  raw.widen_to(out);
}
template <class S, int V, class T>
__device__ __forceinline__ void store(void* target, long long packet, const T (&in)[V]) {
  Raw<S, V> raw;
  raw.narrow_from(in);
  static_cast<Raw<S, V>*>(target)[packet] = raw;
}

// The sum over a warp, in every lane; the order of additions is fixed.
template <class T>
__device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
  for (int d = kWarp / 2; d; d /= 2) v += __shfl_xor_sync(kFullMask, v, d);
  return v;
}

// The arithmetic of the formulas on the card.
template <class T>
struct DeviceMath : ScalarMath<T> {
  __device__ __forceinline__ static T fma(T a, T b, T c) { return ::fma(a, b, c); }
};
template <>
struct DeviceMath<float> : ScalarMath<float> {
  __device__ __forceinline__ static float fma(float a, float b, float c) { return fmaf(a, b, c); }
  // x times a polynomial of degree 9 for log1p(x) / x on [0, 1] (relative error 5e-9): half the instructions of log1pf, which is what
  // keeps a softplus as fast as memory.
  __device__ __forceinline__ static float log1p_unit(float x) {
    float p = -0.00324401426293f;
    p = fmaf(p, x, 0.0198514095622f);
    p = fmaf(p, x, -0.0569594267501f);
    p = fmaf(p, x, 0.106036429456f);
    p = fmaf(p, x, -0.153055847447f);
    p = fmaf(p, x, 0.196759361977f);
    p = fmaf(p, x, -0.249541329725f);
    p = fmaf(p, x, 0.333299623393f);
    p = fmaf(p, x, -0.499999024196f);
    p = fmaf(p, x, 0.999999995287f);
    return p * x;
  }
};

}  // namespace gan_fast::cuda
