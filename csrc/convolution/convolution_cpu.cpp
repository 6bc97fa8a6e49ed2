// The kernels of `winograd.h`: transforms, whose vectors run over channels, and two matrix products.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <type_traits>

#include "common/cpu/bf16.h"
#include "convolution/winograd.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

using namespace winograd;
using std::int64_t;

template <class T>
using Vec = at::vec::Vectorized<T>;

// Images are stored as S; sums and parameters are T.
template <class S>
using SumOf = std::conditional_t<std::is_same_v<S, c10::BFloat16>, float, S>;
// A number of a square or, in bfloat16, a pair that a product adds: the first in the low half.
using Pair = std::uint32_t;
template <class S>
constexpr bool kPairs = std::is_same_v<S, c10::BFloat16>;

// Rows and vectors of a product that are summed in registers: 24 of 32, or 12 of 16.
template <class T>
constexpr int kRows = Vec<T>::size() * sizeof(T) == 64 ? 12 : 6;
template <class T>
constexpr int kGradientRows = Vec<T>::size() * sizeof(T) == 64 ? 8 : 4;
constexpr int kVectors = 2;

// ---- One dimension of each transform

template <class V>
inline void apply_bt(const V d[4], V out[4]) {
  out[0] = d[0] - d[2];
  out[1] = d[1] + d[2];
  out[2] = d[2] - d[1];
  out[3] = d[1] - d[3];
}

template <class V>
inline void apply_at(const V m[4], V out[2]) {
  const V sum = m[1] + m[2], difference = m[1] - m[2];
  out[0] = m[0] + sum;
  out[1] = difference - m[3];
}

template <class V>
inline void apply_a(const V y[2], V out[4]) {
  out[0] = y[0];
  out[1] = y[0] + y[1];
  out[2] = y[0] - y[1];
  out[3] = V(0) - y[1];
}

template <class V>
inline void apply_g(const V g[3], V out[4]) {
  const V half(0.5), outer = (g[0] + g[2]) * half, middle = g[1] * half;
  out[0] = g[0];
  out[1] = outer + middle;
  out[2] = outer - middle;
  out[3] = g[2];
}

template <class V>
inline void apply_gt(const V s[4], V out[3]) {
  const V half(0.5), half_sum = (s[1] + s[2]) * half;
  out[0] = s[0] + half_sum;
  out[1] = (s[1] - s[2]) * half;
  out[2] = half_sum + s[3];
}

// ---- Tiles

struct Tile {
  int64_t image, row, column;
};

inline Tile tile_at(const Tiling& t, int64_t index) {
  const int64_t within = index % (t.rows * t.columns);
  return {index / (t.rows * t.columns), within / t.columns, within % t.columns};
}

// A pixel's channels, or null outside of the image.
template <class T, class Pointer>
inline auto pixel(const Images<Pointer>& images, int64_t image, int64_t row, int64_t column) {
  using P = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const T*, T*>;
  const bool inside = row >= 0 && row < images.height && column >= 0 && column < images.width;
  const int64_t at = ((image * images.height + row) * images.width + column) * images.channels;
  return inside ? static_cast<P>(images.data) + at : nullptr;
}

template <class S>
inline Vec<SumOf<S>> load(const S* from, int64_t channel, int64_t count) {
  using V = Vec<SumOf<S>>;
  if (from == nullptr || count <= 0) {
    return V(SumOf<S>(0));
  }
  if constexpr (kPairs<S>) {
    V result;
    if (count >= V::size()) {
      at::vec::load_fp32_from_bf16(from + channel, result);
    } else {
      S some[V::size()] = {};
      std::copy_n(from + channel, count, some);
      at::vec::load_fp32_from_bf16(some, result);
    }
    return result;
  } else {
    return count >= V::size() ? V::loadu(from + channel) : V::loadu(from + channel, static_cast<int>(count));
  }
}

template <class S>
inline Vec<SumOf<S>> load_all(const S* from) {
  if constexpr (kPairs<S>) {
    Vec<float> result;
    at::vec::load_fp32_from_bf16(from, result);
    return result;
  } else {
    return Vec<S>::loadu(from);
  }
}

template <class S>
inline void store(S* to, const Vec<SumOf<S>>& value, int count) {
  if constexpr (kPairs<S>) {
    at::vec::convert_from_float<c10::BFloat16>(value, value).store(to, count);
  } else {
    value.store(to, count);
  }
}

// Two vectors rounded to bfloat16, side by side in each pair.
inline Vec<std::int32_t> pair_up(const Vec<float>& low, const Vec<float>& high) {
  using I = Vec<std::int32_t>;
  const auto rounded = [](const Vec<float>& x) {
    const I bits = at::vec::cast<std::int32_t>(x);
    const I up = bits + I(0x7fff) + ((bits >> I(16)) & I(1));
    const Vec<float> quiet = at::vec::cast<float>(bits | I(0x400000));
    return at::vec::cast<std::int32_t>(Vec<float>::blendv(at::vec::cast<float>(up), quiet, x != x));
  };
  return ((rounded(low) >> I(16)) & I(0xffff)) | (rounded(high) & I(static_cast<std::int32_t>(0xffff0000u)));
}

template <class T>
inline Vec<T> scale_at(const void* scale, int64_t image, int64_t channels, int64_t channel) {
  return load(static_cast<const T*>(scale) + image * channels, channel, channels - channel);
}

// Rows [kFrom, kTo) of B^T d B of the vector of channels at c.
template <class S, int kFrom, int kTo>
inline void patch(
    const Images<const void*>& x, const Tiling& tiling, const Tile& tile, int64_t c, Vec<SumOf<S>> out[kTo - kFrom][4]) {
  using V = Vec<SumOf<S>>;
  V half[4][4];
  for (int j = 0; j < 4; ++j) {
    V column[4], result[4];
    for (int i = 0; i < 4; ++i) {
      const S* const from =
          pixel<S>(x, tile.image, 2 * tile.row - tiling.padding_h + i, 2 * tile.column - tiling.padding_w + j);
      column[i] = load(from, c, x.channels - c);
    }
    apply_bt(column, result);
    for (int i = kFrom; i < kTo; ++i) {
      half[i][j] = result[i];
    }
  }
  const V scale =
      x.scale == nullptr ? V(SumOf<S>(1)) : scale_at<SumOf<S>>(x.scale, tile.image, x.channels, c);
  for (int i = kFrom; i < kTo; ++i) {
    apply_bt(half[i], out[i - kFrom]);
    if (x.scale != nullptr) {
      for (int j = 0; j < 4; ++j) {
        out[i - kFrom][j] = out[i - kFrom][j] * scale;
      }
    }
  }
}

// Rows [kFrom, kTo) of A dy A^T of the vector of channels at c.
template <class S, int kFrom, int kTo>
inline void cotangent(
    const Images<const void*>& dy, const Tiling&, const Tile& tile, int64_t c, Vec<SumOf<S>> out[kTo - kFrom][4]) {
  using V = Vec<SumOf<S>>;
  const V scale =
      dy.scale == nullptr ? V(SumOf<S>(1)) : scale_at<SumOf<S>>(dy.scale, tile.image, dy.channels, c);
  V half[4][2];
  for (int j = 0; j < 2; ++j) {
    V column[2], result[4];
    for (int i = 0; i < 2; ++i) {
      column[i] = load(pixel<S>(dy, tile.image, 2 * tile.row + i, 2 * tile.column + j), c, dy.channels - c);
      if (dy.scale != nullptr) {
        column[i] = column[i] * scale;
      }
    }
    apply_a(column, result);
    for (int i = kFrom; i < kTo; ++i) {
      half[i][j] = result[i];
    }
  }
  for (int i = kFrom; i < kTo; ++i) {
    apply_a(half[i], out[i - kFrom]);
  }
}

// All of B^T d B of tiles [first, last), [place, panel, tile, kPanel].
template <class S>
void patches(const Images<const void*>& x, const Tiling& tiling, int64_t first, int64_t last, int64_t room, S* out) {
  using V = Vec<SumOf<S>>;
  const int64_t stride = place_stride(panels(x.channels), room);
  for (int64_t index = first; index < last; ++index) {
    const Tile tile = tile_at(tiling, index);
    for (int64_t c = 0; c < panels(x.channels) * kPanel; c += V::size()) {
      V d[4][4];
      patch<S, 0, 4>(x, tiling, tile, c, d);
      S* const to = out + (c / kPanel * room + index - first) * kPanel + c % kPanel;
      for (int p = 0; p < kPlaces; ++p) {
        store(to + p * stride, d[p / 4][p % 4], V::size());
      }
    }
  }
}

// One row of the squares that `kSquare` makes of tiles [first, last) and of the channels in some panels:
// [place, panel, tile, kPanel], and in bfloat16 [place, panel, pair of tiles, kPanel, 2].
template <class S, auto kSquare>
void row_of_squares(
    const Images<const void*>& x, const Tiling& tiling, int64_t first, int64_t last, const Range& range, S* out) {
  using T = SumOf<S>;
  using V = Vec<T>;
  const int64_t stride = place_stride(range.size(), kChunk);
  constexpr int64_t kStep = kPairs<S> ? 2 : 1;
  for (int64_t index = first; index < last; index += kStep) {
    const Tile tile = tile_at(tiling, index);
    for (int64_t c = range.begin * kPanel; c < range.end * kPanel; c += V::size()) {
      V d[1][4];
      kSquare(x, tiling, tile, c, d);
      const int64_t at = (c / kPanel - range.begin) * kChunk * kPanel + (index - first) * kPanel + c % kPanel * kStep;
      if constexpr (kPairs<S>) {
        V next[1][4];
        if (index + 1 < last) {
          kSquare(x, tiling, tile_at(tiling, index + 1), c, next);
        } else {
          for (V& v : next[0]) {
            v = V(T(0));
          }
        }
        for (int j = 0; j < 4; ++j) {
          pair_up(d[0][j], next[0][j]).store(out + at + j * stride);
        }
      } else {
        for (int j = 0; j < 4; ++j) {
          d[0][j].store(out + at + j * stride);
        }
      }
    }
  }
}

template <class T>
inline Vec<T> activated(const Epilogue& e, Vec<T> u) {
  using V = Vec<T>;
  if (e.act != 0) {
    u = V::blendv(u * V(static_cast<T>(e.act == 2 ? e.alpha : 0)), u, u > V(T(0)));
  }
  u = u * V(static_cast<T>(e.gain));
  if (e.clamp >= 0) {
    u = at::vec::clamp(u, V(static_cast<T>(-e.clamp)), V(static_cast<T>(e.clamp)));
  }
  return u;
}

// A^T m A of one panel of output channels, and what follows it, into the image.
template <class S>
void outputs(const Forward& job, const SumOf<S>* m, int64_t first, int64_t last, int64_t channel) {
  using T = SumOf<S>;
  using V = Vec<T>;
  const Epilogue& e = job.epilogue;
  const bool plain = e.act == 0 && e.gain == 1 && e.clamp < 0;
  const int64_t stride = place_stride(1, job.block);
  const int64_t width = std::min(kPanel, job.y.channels - channel);
  Images<const void*> other{job.other, job.y.height, job.y.width, job.y.channels};
  for (int64_t index = first; index < last; ++index) {
    const Tile tile = tile_at(job.tiling, index);
    S* to[2][2];
    const S* beside[2][2] = {};
    T noise[2][2] = {};
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        const int64_t row = 2 * tile.row + i, column = 2 * tile.column + j;
        to[i][j] = pixel<S>(job.y, tile.image, row, column);
        if (job.row_sums != nullptr) {
          beside[i][j] = pixel<S>(other, tile.image, row, column);
        }
        if (e.noise != nullptr && to[i][j] != nullptr) {
          noise[i][j] = static_cast<const T*>(e.noise)[tile.image * e.noise_stride + row * job.y.width + column];
        }
      }
    }
    const T* const from = m + (index - first) * kPanel;
    for (int64_t c = 0; c < width; c += V::size()) {
      const int count = static_cast<int>(std::min<int64_t>(V::size(), width - c));
      V half[2][4];
      for (int j = 0; j < 4; ++j) {
        V column[4], result[2];
        for (int i = 0; i < 4; ++i) {
          column[i] = V::loadu(from + (4 * i + j) * stride + c);
        }
        apply_at(column, result);
        half[0][j] = result[0];
        half[1][j] = result[1];
      }
      const V bias = e.bias == nullptr ? V(T(0)) : V::loadu(static_cast<const T*>(e.bias) + channel + c, count);
      const V scale = job.y.scale == nullptr
          ? V(T(1))
          : scale_at<T>(job.y.scale, tile.image, job.y.channels, channel + c);
      V products(T(0));
      for (int i = 0; i < 2; ++i) {
        V y[2];
        apply_at(half[i], y);
        for (int j = 0; j < 2; ++j) {
          if (to[i][j] == nullptr) {
            continue;
          }
          if (job.row_sums != nullptr) {
            products = at::vec::fmadd(load(beside[i][j], channel + c, count), y[j], products);
          }
          V u = job.y.scale == nullptr ? y[j] : y[j] * scale;
          u = u + bias;
          if (e.noise != nullptr) {
            u = u + V(noise[i][j]);
          }
          store(to[i][j] + channel + c, plain ? u : activated<T>(e, u), count);
        }
      }
      if (job.row_sums != nullptr) {
        T* const sum = static_cast<T*>(job.row_sums) +
            (tile.image * job.tiling.rows + tile.row) * job.y.channels + channel + c;
        (V::loadu(sum, count) + products).store(sum, count);
      }
    }
  }
}

// ---- Products

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

// G w G^T of one input channel and a vector of output channels.
template <class T>
inline void square_of_kernels(const T kernels[9][kPanel], int64_t lane, Vec<T> out[4][4]) {
  using V = Vec<T>;
  V half[3][4];
  for (int r = 0; r < 3; ++r) {
    const V row[3] = {
        V::loadu(&kernels[3 * r][lane]), V::loadu(&kernels[3 * r + 1][lane]), V::loadu(&kernels[3 * r + 2][lane])};
    apply_g(row, half[r]);
  }
  for (int c = 0; c < 4; ++c) {
    const V column[3] = {half[0][c], half[1][c], half[2][c]};
    V g[4];
    apply_g(column, g);
    for (int r = 0; r < 4; ++r) {
      out[r][c] = g[r];
    }
  }
}

template <class S>
void weights(const Weights& job, int64_t begin, int64_t end) {
  using T = SumOf<S>;
  using V = Vec<T>;
  constexpr int64_t kStep = kPairs<S> ? 2 : 1;
  const T* const w = static_cast<const T*>(job.w);
  S* const u = static_cast<S*>(job.u);
  const int64_t rows = (job.in + kStep - 1) / kStep * kStep, stride = panels(job.out) * rows * kPanel;
  T kernels[kStep][9][kPanel] = {};  // of one input channel, or of a pair, and a panel of outputs
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t width = std::min(kPanel, job.out - panel * kPanel);
    for (int64_t i = 0; i < job.in; i += kStep) {
      std::fill_n(&kernels[0][0][0], kStep * 9 * kPanel, T(0));
      for (int64_t k = 0; k < std::min(kStep, job.in - i); ++k) {
        const T* const from = w + panel * kPanel * job.out_stride + (i + k) * job.in_stride;
        for (int64_t lane = 0; lane < width; ++lane) {
          for (int r = 0; r < 3; ++r) {
            for (int c = 0; c < 3; ++c) {
              kernels[k][3 * r + c][lane] = from[lane * job.out_stride + r * job.row_stride + c * job.column_stride];
            }
          }
        }
      }
      S* const to = u + (panel * rows + i) * kPanel;
      for (int64_t lane = 0; lane < kPanel; lane += V::size()) {
        V g[4][4];
        square_of_kernels(kernels[0], lane, g);
        if constexpr (kPairs<S>) {
          V next[4][4];
          square_of_kernels(kernels[1], lane, next);
          for (int p = 0; p < kPlaces; ++p) {
            pair_up(g[p / 4][p % 4], next[p / 4][p % 4]).store(to + p * stride + 2 * lane);
          }
        } else {
          for (int p = 0; p < kPlaces; ++p) {
            g[p / 4][p % 4].store(to + p * stride + lane);
          }
        }
      }
    }
  }
}

template <class S>
void forward(const Forward& job, int64_t begin, int64_t end, void* scratch) {
  using T = SumOf<S>;
  const int64_t in = job.x.channels, out = job.y.channels;
  const int64_t v_stride = place_stride(panels(in), job.block), m_stride = place_stride(1, job.block);
  const int64_t rows = kPairs<S> ? (in + 1) / 2 * 2 : in, u_stride = panels(out) * rows * kPanel;
  T* const m = static_cast<T*>(scratch);
  S* const v = reinterpret_cast<S*>(m + kPlaces * m_stride);
  for (int64_t first = begin; first < end; first += job.step) {
    const int64_t last = std::min(first + job.step, end);
    // Rows up to a whole strip hold what was there before; their products are not read.
    patches<S>(job.x, job.tiling, first, last, job.block, v);
    for (int64_t channel = 0; channel < out; channel += kPanel) {
      for (int p = 0; p < kPlaces; ++p) {
        const S* const u = static_cast<const S*>(job.u) + p * u_stride + channel * rows;
        over_panel<T>(std::min(kPanel, out - channel), [&](int64_t c, auto n) {
          for (int64_t t = 0; t < last - first; t += kRows<T>) {
            product_of<S, n()>(
                v + p * v_stride + t * kPanel, job.block, u + (kPairs<S> ? 2 * c : c), in,
                m + p * m_stride + t * kPanel + c);
          }
        });
      }
      outputs<S>(job, m, first, last, channel);
    }
  }
}

// One row of places, and panels [i.begin, i.end) by [o.begin, o.end) of channels.
template <class S, int kRow>
void sums_of_row(const Sums& job, const Range& i, const Range& o, S* scratch) {
  using T = SumOf<S>;
  const int64_t out_panels = panels(job.dy.channels), square = kPanel * kPanel;
  const int64_t v_stride = place_stride(i.size(), kChunk), q_stride = place_stride(o.size(), kChunk);
  S* const v = scratch;
  S* const q = scratch + 4 * v_stride;
  T* const sums = static_cast<T*>(job.sums) + 4 * kRow * panels(job.x.channels) * out_panels * square;
  for (int64_t first = 0; first < job.tiles; first += kChunk) {
    const int64_t last = std::min(first + kChunk, job.tiles);
    row_of_squares<S, patch<S, kRow, kRow + 1>>(job.x, job.tiling, first, last, i, v);
    row_of_squares<S, cotangent<S, kRow, kRow + 1>>(job.dy, job.tiling, first, last, o, q);
    for (int64_t place = 0; place < 4; ++place) {
      for (int64_t ip = i.begin; ip < i.end; ++ip) {
        const S* const a = v + place * v_stride + (ip - i.begin) * kChunk * kPanel;
        const int64_t rows = std::min(kPanel, job.x.channels - ip * kPanel);
        for (int64_t op = o.begin; op < o.end; ++op) {
          const S* const b = q + place * q_stride + (op - o.begin) * kChunk * kPanel;
          T* const to = sums + ((place * panels(job.x.channels) + ip) * out_panels + op) * square;
          over_panel<T>(std::min(kPanel, job.dy.channels - op * kPanel), [&](int64_t c, auto n) {
            for (int64_t r = 0; r < rows; r += kGradientRows<T>) {
              constexpr int64_t kWide = kPairs<S> ? 2 : 1;
              outer_product_of<S, n()>(a + kWide * r, b + kWide * c, last - first, to + r * kPanel + c);
            }
          });
        }
      }
    }
  }
}

template <class S>
void sums(const Sums& job, int64_t begin, int64_t end, S* scratch) {
  constexpr auto kRowsOfPlaces = std::array{&sums_of_row<S, 0>, &sums_of_row<S, 1>, &sums_of_row<S, 2>, &sums_of_row<S, 3>};
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t o = unit % job.out_groups, i = unit / job.out_groups % job.in_groups;
    kRowsOfPlaces[unit / (job.in_groups * job.out_groups)](
        job, part(panels(job.x.channels), job.in_groups, i), part(panels(job.dy.channels), job.out_groups, o), scratch);
  }
}

template <class T>
void weight_gradient(const WeightGradient& job, int64_t begin, int64_t end) {
  using V = Vec<T>;
  const int64_t in_panels = panels(job.in), out_panels = panels(job.out);
  const int64_t stride = in_panels * out_panels * kPanel * kPanel;
  T* const dw = static_cast<T*>(job.dw);
  T kernels[9][kPanel];
  for (int64_t i = begin * kPanel; i < std::min(end * kPanel, job.in); ++i) {
    for (int64_t o = 0; o < job.out; o += kPanel) {
      const T* const from = static_cast<const T*>(job.sums) +
          ((i / kPanel * out_panels + o / kPanel) * kPanel + i % kPanel) * kPanel;
      for (int64_t lane = 0; lane < kPanel; lane += V::size()) {
        V half[4][3];
        for (int r = 0; r < 4; ++r) {
          V row[4];
          for (int c = 0; c < 4; ++c) {
            row[c] = V::loadu(from + (4 * r + c) * stride + lane);
          }
          apply_gt(row, half[r]);
        }
        for (int c = 0; c < 3; ++c) {
          const V column[4] = {half[0][c], half[1][c], half[2][c], half[3][c]};
          V result[3];
          apply_gt(column, result);
          for (int r = 0; r < 3; ++r) {
            result[r].store(&kernels[3 * r + c][lane]);
          }
        }
      }
      T* const to = dw + o * job.out_stride + i * job.in_stride;
      for (int64_t lane = 0; lane < std::min(kPanel, job.out - o); ++lane) {
        for (int r = 0; r < 3; ++r) {
          for (int c = 0; c < 3; ++c) {
            to[lane * job.out_stride + r * job.row_stride + c * job.column_stride] = kernels[3 * r + c][lane];
          }
        }
      }
    }
  }
}

// Squares of a matrix, by way of one that stays in the first-level cache: rows lie powers of two apart, in one set of it.
template <class T>
void transpose(const Transposition& job, int64_t begin, int64_t end) {
  constexpr int64_t kSide = 16;
  const int64_t across = (job.columns + kSide - 1) / kSide, size = job.rows * job.columns;
  for (int64_t task = begin; task < end; ++task) {
    const T* const from = static_cast<const T*>(job.from) + task / across * size;
    T* const to = static_cast<T*>(job.to) + task / across * size;
    const int64_t c0 = task % across * kSide, columns = std::min(kSide, job.columns - c0);
    for (int64_t r0 = 0; r0 < job.rows; r0 += kSide) {
      const int64_t rows = std::min(kSide, job.rows - r0);
      T square[kSide][kSide];
      if (rows == kSide && columns == kSide) {
        for (int64_t r = 0; r < kSide; ++r) {
          for (int64_t c = 0; c < kSide; ++c) {
            square[c][r] = from[(r0 + r) * job.columns + c0 + c];
          }
        }
        for (int64_t c = 0; c < kSide; ++c) {
          std::copy_n(square[c], kSide, to + (c0 + c) * job.rows + r0);
        }
      } else {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t c = 0; c < columns; ++c) {
            to[(c0 + c) * job.rows + r0 + r] = from[(r0 + r) * job.columns + c0 + c];
          }
        }
      }
    }
  }
}

// Of one vector of dy and y: dz, which is returned, and what is added to both sums.
template <class T>
class EpilogueDerivative {
  using V = Vec<T>;

 public:
  explicit EpilogueDerivative(const EpilogueGradient& job)
      : clamped_(job.epilogue.clamp >= 0),
        clamp_(static_cast<T>(job.clamp)),
        gain_(static_cast<T>(job.epilogue.gain)),
        slope_(static_cast<T>(job.epilogue.act == 2 ? job.epilogue.alpha : job.epilogue.act == 1 ? 0 : 1)) {}

  V operator()(V dy, const V& y, const V* noise, V& sum, V& products) const {
    if (clamped_) {
      dy = V::blendv(V(T(0)), dy, y.abs() < clamp_);
    }
    products = at::vec::fmadd(dy, y, products);
    V dz = dy * gain_;
    dz = V::blendv(dz * slope_, dz, y > V(T(0)));
    if (noise != nullptr) {
      products = products - dz * *noise;
    }
    sum = sum + dz;
    return dz;
  }

 private:
  bool clamped_;
  V clamp_, gain_, slope_;
};

template <class S>
void epilogue_gradient_of_planes(const EpilogueGradient& job, int64_t begin, int64_t end) {
  using T = SumOf<S>;
  using V = Vec<T>;
  constexpr int64_t kBlock = 2048;  // summed by itself
  const EpilogueDerivative<T> derivative(job);
  const auto total = [](const V& v) {
    return at::vec::vec_reduce_all<T>([](const V& a, const V& b) { return a + b; }, v);
  };
  for (int64_t plane = begin; plane < end; ++plane) {
    const int64_t image = plane / job.channels, channel = plane % job.channels;
    const S* const dy = static_cast<const S*>(job.dy) + plane * job.pixels;
    const S* const y = static_cast<const S*>(job.y) + plane * job.pixels;
    S* const dz = static_cast<S*>(job.dz) + plane * job.pixels;
    const T* const noise = job.epilogue.noise == nullptr
        ? nullptr
        : static_cast<const T*>(job.epilogue.noise) + image * job.epilogue.noise_stride;
    double sums[2] = {};
    for (int64_t first = 0; first < job.pixels; first += kBlock) {
      const int64_t last = std::min(first + kBlock, job.pixels);
      V sum(T(0)), products(T(0));
      for (int64_t p = first; p < last; p += V::size()) {
        const int count = static_cast<int>(std::min<int64_t>(V::size(), last - p));
        const V n = noise == nullptr ? V(T(0)) : V::loadu(noise + p, count);
        const V z = derivative(
            load(dy, p, last - p), load(y, p, last - p), noise == nullptr ? nullptr : &n, sum, products);
        store(dz + p, z, count);
      }
      sums[0] += total(sum);
      sums[1] += total(products);
    }
    T* const to = static_cast<T*>(job.sums) + 2 * image * job.channels + channel;
    to[0] = static_cast<T>(sums[0]);
    to[job.channels] = static_cast<T>(sums[1]);
  }
}

// kN vectors of channels from c on, of some pixels of one image; the last vector may have fewer where kN is 1.
template <class S, int kN>
inline void epilogue_gradient_of_pixels(
    const EpilogueGradient& job, const EpilogueDerivative<SumOf<S>>& derivative, int64_t image, int64_t first,
    int64_t last, int64_t c, SumOf<S>* sums) {
  using T = SumOf<S>;
  using V = Vec<T>;
  const int64_t channels = job.channels;
  const T* const noise = job.epilogue.noise == nullptr
      ? nullptr
      : static_cast<const T*>(job.epilogue.noise) + image * job.epilogue.noise_stride;
  V sum[kN], products[kN];
  for (int n = 0; n < kN; ++n) {
    sum[n] = products[n] = V(T(0));
  }
  constexpr int kSize = V::size();
  const int count = kN > 1 ? kSize : static_cast<int>(std::min<int64_t>(kSize, channels - c));
  for (int64_t pixel = first; pixel < last; ++pixel) {
    const int64_t at = (image * job.pixels + pixel) * channels + c;
    const V of_pixel(noise == nullptr ? T(0) : noise[pixel]);
    for (int n = 0; n < kN; ++n) {
      const S *const dy = static_cast<const S*>(job.dy) + at + n * kSize, *const y = static_cast<const S*>(job.y) + at + n * kSize;
      const V dz = derivative(
          kN > 1 ? load_all(dy) : load(dy, 0, count), kN > 1 ? load_all(y) : load(y, 0, count),
          noise == nullptr ? nullptr : &of_pixel, sum[n], products[n]);
      store(static_cast<S*>(job.dz) + at + n * kSize, dz, count);
    }
  }
  for (int n = 0; n < kN; ++n) {
    sum[n].store(sums + c + n * kSize, count);
    products[n].store(sums + channels + c + n * kSize, count);
  }
}

template <class S>
void epilogue_gradient(const EpilogueGradient& job, int64_t begin, int64_t end) {
  using T = SumOf<S>;
  if (job.planes) {
    return epilogue_gradient_of_planes<S>(job, begin, end);
  }
  constexpr int kMany = 4;
  constexpr int64_t kStep = Vec<T>::size();
  const EpilogueDerivative<T> derivative(job);
  const int64_t parts = (job.pixels + kPart - 1) / kPart;
  for (int64_t task = begin; task < end; ++task) {
    const int64_t image = task / parts, first = task % parts * kPart, last = std::min(first + kPart, job.pixels);
    T* const sums = static_cast<T*>(job.sums) + task * 2 * job.channels;
    int64_t c = 0;
    for (; c + kMany * kStep <= job.channels; c += kMany * kStep) {
      epilogue_gradient_of_pixels<S, kMany>(job, derivative, image, first, last, c, sums);
    }
    for (; c < job.channels; c += kStep) {
      epilogue_gradient_of_pixels<S, 1>(job, derivative, image, first, last, c, sums);
    }
  }
}

template <class F>
inline void with_storage(Storage storage, const F& f) {
  switch (storage) {
    case Storage::Float:
      return f(float());
    case Storage::Double:
      return f(double());
    case Storage::BFloat16:
      return f(c10::BFloat16());
  }
}

}  // namespace

void winograd_weights(Storage storage, const Weights& job, int64_t begin, int64_t end) {
  with_storage(storage, [&](auto zero) { weights<decltype(zero)>(job, begin, end); });
}

void winograd_forward(Storage storage, const Forward& job, int64_t begin, int64_t end, void* scratch) {
  with_storage(storage, [&](auto zero) { forward<decltype(zero)>(job, begin, end, scratch); });
}

void winograd_sums(Storage storage, const Sums& job, int64_t begin, int64_t end, void* scratch) {
  with_storage(storage, [&](auto zero) { sums(job, begin, end, static_cast<decltype(zero)*>(scratch)); });
}

void winograd_weight_gradient(Storage storage, const WeightGradient& job, int64_t begin, int64_t end) {
  with_storage(storage, [&](auto zero) { weight_gradient<SumOf<decltype(zero)>>(job, begin, end); });
}

void winograd_epilogue_gradient(Storage storage, const EpilogueGradient& job, int64_t begin, int64_t end) {
  with_storage(storage, [&](auto zero) { epilogue_gradient<decltype(zero)>(job, begin, end); });
}

void winograd_transpose(Storage storage, const Transposition& job, int64_t begin, int64_t end) {
  with_storage(storage, [&](auto zero) { transpose<decltype(zero)>(job, begin, end); });
}

}  // namespace gan_fast::CPU_CAPABILITY
