// The matrix products between Winograd's transforms: squares by kernels, and squares by squares.
#pragma once

#include <algorithm>
#include <type_traits>

#include "common/cpu/bf16.h"
#include "convolution/winograd_vectors.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

using winograd::kPanel;

// Rows and vectors of a product that are summed in registers: 24 of 32, or 12 of 16.
template <class T>
constexpr int kRows = Vec<T>::size() * sizeof(T) == 64 ? 12 : 6;
template <class T>
constexpr int kGradientRows = Vec<T>::size() * sizeof(T) == 64 ? 8 : 4;
constexpr int kVectors = 2;

// m[r, :] = sum over k of v[r, k] u[k, :] for kRows tiles and kN vectors of output channels. v: [panels, room, kPanel].
// Panels are summed by themselves: 256 terms in a row would have twice the error.
template <class T, int kN>
inline void product(const T* v, int64_t room, const T* u, int64_t depth, T* m) {
  using V = Vec<T>;
  constexpr int R = kRows<T>;
  for (int64_t panel = 0; panel < depth; panel += kPanel) {
    V sums[R][kN];
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        sums[r][n] = V(T(0));
      }
    }
    const T* const a = v + panel * room;
    const T* b = u + panel * kPanel;
    const int64_t count = std::min(kPanel, depth - panel);
    for (int64_t k = 0; k < count; ++k, b += kPanel) {
      V w[kN];
      for (int n = 0; n < kN; ++n) {
        w[n] = V::loadu(b + n * V::size());
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const V x(a[r * kPanel + k]);
        for (int n = 0; n < kN; ++n) {
          sums[r][n] = at::vec::fmadd(x, w[n], sums[r][n]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        T* const to = m + r * kPanel + n * V::size();
        (panel == 0 ? sums[r][n] : V::loadu(to) + sums[r][n]).store(to);
      }
    }
  }
}

// sums[r, :] += sum over tiles of v[t, r] q[t, :]. Both [tiles, kPanel].
template <class T, int kN>
inline void outer_product(const T* v, const T* q, int64_t tiles, T* sums) {
  using V = Vec<T>;
  constexpr int R = kGradientRows<T>;
  V s[R][kN];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < kN; ++n) {
      s[r][n] = V(T(0));
    }
  }
  for (int64_t t = 0; t < tiles; ++t, v += kPanel, q += kPanel) {
    V w[kN];
    for (int n = 0; n < kN; ++n) {
      w[n] = V::loadu(q + n * V::size());
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V x(v[r]);
      for (int n = 0; n < kN; ++n) {
        s[r][n] = at::vec::fmadd(x, w[n], s[r][n]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < kN; ++n) {
      T* const to = sums + r * kPanel + n * V::size();
      (V::loadu(to) + s[r][n]).store(to);
    }
  }
}

// ---- Products of pairs in bfloat16, by the instruction for them where the processor has it

inline Vec<float> add_pairs(std::int32_t a, const Vec<std::int32_t>& b, Vec<float> sum) {
  using I = Vec<std::int32_t>;
  const I upper(static_cast<std::int32_t>(0xffff0000u)), x(a);
  sum = at::vec::fmadd(at::vec::cast<float>(x << I(16)), at::vec::cast<float>(b << I(16)), sum);
  return at::vec::fmadd(at::vec::cast<float>(x & upper), at::vec::cast<float>(b & upper), sum);
}

#if defined(CPU_CAPABILITY_AVX512) && defined(GAN_FAST_HAS_BF16_INTRINSICS)
#define GAN_FAST_BF16_PRODUCTS 1
#define GAN_FAST_BF16_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,avx512bf16")))
#endif

// m[r, :] = sum over pairs k of v[r, k] u[k, :]. v: [panels, room, kPanel / 2] pairs, u: [pairs, kPanel].
template <int kN>
inline void product_of_pairs(const Pair* v, int64_t room, const Pair* u, int64_t depth, float* m) {
  using V = Vec<float>;
  using I = Vec<std::int32_t>;
  constexpr int R = kRows<float>;
  constexpr int64_t kDeep = kPanel / 2;
  for (int64_t panel = 0; panel < depth; panel += kDeep) {
    V sums[R][kN];
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        sums[r][n] = V(0.f);
      }
    }
    const Pair* const a = v + panel * room;
    const Pair* b = u + panel * kPanel;
    for (int64_t k = 0; k < std::min(kDeep, depth - panel); ++k, b += kPanel) {
      I w[kN];
      for (int n = 0; n < kN; ++n) {
        w[n] = I::loadu(b + n * V::size());
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        for (int n = 0; n < kN; ++n) {
          sums[r][n] = add_pairs(static_cast<std::int32_t>(a[r * kDeep + k]), w[n], sums[r][n]);
        }
      }
    }
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        float* const to = m + r * kPanel + n * V::size();
        (panel == 0 ? sums[r][n] : V::loadu(to) + sums[r][n]).store(to);
      }
    }
  }
}

// sums[r, :] += sum over pairs t of tiles of v[t, r] q[t, :]. Both [pairs, kPanel].
template <int kN>
inline void outer_product_of_pairs(const Pair* v, const Pair* q, int64_t pairs, float* sums) {
  using V = Vec<float>;
  using I = Vec<std::int32_t>;
  constexpr int R = kGradientRows<float>;
  V s[R][kN];
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < kN; ++n) {
      s[r][n] = V(0.f);
    }
  }
  for (int64_t t = 0; t < pairs; ++t, v += kPanel, q += kPanel) {
    I w[kN];
    for (int n = 0; n < kN; ++n) {
      w[n] = I::loadu(q + n * V::size());
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        s[r][n] = add_pairs(static_cast<std::int32_t>(v[r]), w[n], s[r][n]);
      }
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < kN; ++n) {
      float* const to = sums + r * kPanel + n * V::size();
      (V::loadu(to) + s[r][n]).store(to);
    }
  }
}

#ifdef GAN_FAST_BF16_PRODUCTS
template <int kN>
GAN_FAST_BF16_TARGET void product_by_instruction(
    const Pair* v, int64_t room, const Pair* u, int64_t depth, float* m) {
  constexpr int R = 12;
  constexpr int64_t kDeep = kPanel / 2;
  for (int64_t panel = 0; panel < depth; panel += kDeep) {
    __m512 sums[R][kN];
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        sums[r][n] = _mm512_setzero_ps();
      }
    }
    const Pair* const a = v + panel * room;
    const Pair* b = u + panel * kPanel;
    const int64_t count = std::min(kDeep, depth - panel);
    for (int64_t k = 0; k < count; ++k, b += kPanel) {
      __m512bh w[kN];
      for (int n = 0; n < kN; ++n) {
        w[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(b + n * 16));
      }
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(a[r * kDeep + k])));
        for (int n = 0; n < kN; ++n) {
          sums[r][n] = _mm512_dpbf16_ps(sums[r][n], x, w[n]);
        }
      }
    }
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      for (int n = 0; n < kN; ++n) {
        float* const to = m + r * kPanel + n * 16;
        _mm512_storeu_ps(to, panel == 0 ? sums[r][n] : _mm512_add_ps(_mm512_loadu_ps(to), sums[r][n]));
      }
    }
  }
}

template <int kN>
GAN_FAST_BF16_TARGET void outer_product_by_instruction(const Pair* v, const Pair* q, int64_t pairs, float* sums) {
  constexpr int R = 8;
  __m512 s[R][kN];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < kN; ++n) {
      s[r][n] = _mm512_setzero_ps();
    }
  }
  for (int64_t t = 0; t < pairs; ++t, v += kPanel, q += kPanel) {
    __m512bh w[kN];
    for (int n = 0; n < kN; ++n) {
      w[n] = reinterpret_cast<__m512bh>(_mm512_loadu_si512(q + n * 16));
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const auto x = reinterpret_cast<__m512bh>(_mm512_set1_epi32(static_cast<int>(v[r])));
      for (int n = 0; n < kN; ++n) {
        s[r][n] = _mm512_dpbf16_ps(s[r][n], x, w[n]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r) {
    for (int n = 0; n < kN; ++n) {
      float* const to = sums + r * kPanel + n * 16;
      _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), s[r][n]));
    }
  }
}

bool has_instruction() {
  static const bool has = bf16_support().products;
  return has;
}
#endif

// Of squares stored as S; `depth` and `tiles` are in numbers.
template <class S, int kN>
inline void product_of(const S* v, int64_t room, const S* u, int64_t depth, SumOf<S>* m) {
  if constexpr (kPairs<S>) {
    const auto *a = reinterpret_cast<const Pair*>(v), *b = reinterpret_cast<const Pair*>(u);
#ifdef GAN_FAST_BF16_PRODUCTS
    if (has_instruction()) {
      return product_by_instruction<kN>(a, room, b, (depth + 1) / 2, m);
    }
#endif
    product_of_pairs<kN>(a, room, b, (depth + 1) / 2, m);
  } else {
    product<S, kN>(v, room, u, depth, m);
  }
}

template <class S, int kN>
inline void outer_product_of(const S* v, const S* q, int64_t tiles, SumOf<S>* sums) {
  if constexpr (kPairs<S>) {
    const auto *a = reinterpret_cast<const Pair*>(v), *b = reinterpret_cast<const Pair*>(q);
#ifdef GAN_FAST_BF16_PRODUCTS
    if (has_instruction()) {
      return outer_product_by_instruction<kN>(a, b, (tiles + 1) / 2, sums);
    }
#endif
    outer_product_of_pairs<kN>(a, b, (tiles + 1) / 2, sums);
  } else {
    outer_product<S, kN>(v, q, tiles, sums);
  }
}

// Calls f(vector, number of vectors) over the `width` used channels of a panel, two vectors at a time.
template <class T, class F>
inline void over_panel(int64_t width, const F& f) {
  constexpr int64_t kSize = Vec<T>::size();
  for (int64_t c = 0; c < width; c += kVectors * kSize) {
    if (width - c > kSize) {
      f(c, std::integral_constant<int, kVectors>());
    } else {
      f(c, std::integral_constant<int, 1>());
    }
  }
}

}  // namespace
}  // namespace gan_fast::CPU_CAPABILITY
