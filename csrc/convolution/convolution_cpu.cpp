// The kernels of `winograd.h`: transforms, whose vectors run over channels, and two matrix products.

#include <ATen/cpu/vec/functional.h>
#include <ATen/cpu/vec/vec.h>

#include <algorithm>
#include <array>
#include <type_traits>

#include "convolution/winograd.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

using namespace winograd;
using std::int64_t;

template <class T>
using Vec = at::vec::Vectorized<T>;

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

template <class T>
inline Vec<T> load(const T* from, int64_t channel, int64_t count) {
  if (from == nullptr || count <= 0) {
    return Vec<T>(T(0));
  }
  return count >= Vec<T>::size() ? Vec<T>::loadu(from + channel) : Vec<T>::loadu(from + channel, static_cast<int>(count));
}

// Rows [kFrom, kTo) of B^T d B of tiles [first, last) and of the channels in some panels.
template <class T, int kFrom, int kTo>
void patches(
    const Images<const void*>& x, const Tiling& tiling, int64_t first, int64_t last, const Range& range, int64_t room,
    T* out) {
  using V = Vec<T>;
  const int64_t stride = place_stride(range.size(), room);
  for (int64_t index = first; index < last; ++index) {
    const Tile tile = tile_at(tiling, index);
    const T* from[4][4];
    for (int i = 0; i < 4; ++i) {
      for (int j = 0; j < 4; ++j) {
        from[i][j] = pixel<T>(x, tile.image, 2 * tile.row - tiling.padding_h + i, 2 * tile.column - tiling.padding_w + j);
      }
    }
    for (int64_t c = range.begin * kPanel; c < range.end * kPanel; c += V::size()) {
      V d[4][4], half[4][4];
      for (int j = 0; j < 4; ++j) {
        V column[4], result[4];
        for (int i = 0; i < 4; ++i) {
          column[i] = load(from[i][j], c, x.channels - c);
        }
        apply_bt(column, result);
        for (int i = kFrom; i < kTo; ++i) {
          half[i][j] = result[i];
        }
      }
      T* const to = out + ((c / kPanel - range.begin) * room + index - first) * kPanel + c % kPanel;
      for (int i = kFrom; i < kTo; ++i) {
        apply_bt(half[i], d[i]);
        for (int j = 0; j < 4; ++j) {
          d[i][j].store(to + (4 * (i - kFrom) + j) * stride);
        }
      }
    }
  }
}

// Rows [kFrom, kTo) of A dy A^T of tiles [first, last) and of the channels in some panels.
template <class T, int kFrom, int kTo>
void cotangents(
    const Images<const void*>& dy, const Tiling& tiling, int64_t first, int64_t last, const Range& range, int64_t room,
    T* out) {
  using V = Vec<T>;
  const int64_t stride = place_stride(range.size(), room);
  for (int64_t index = first; index < last; ++index) {
    const Tile tile = tile_at(tiling, index);
    const T* from[2][2];
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        from[i][j] = pixel<T>(dy, tile.image, 2 * tile.row + i, 2 * tile.column + j);
      }
    }
    for (int64_t c = range.begin * kPanel; c < range.end * kPanel; c += V::size()) {
      V half[4][2];
      for (int j = 0; j < 2; ++j) {
        const V column[2] = {load(from[0][j], c, dy.channels - c), load(from[1][j], c, dy.channels - c)};
        V result[4];
        apply_a(column, result);
        for (int i = 0; i < 4; ++i) {
          half[i][j] = result[i];
        }
      }
      T* const to = out + ((c / kPanel - range.begin) * room + index - first) * kPanel + c % kPanel;
      for (int i = kFrom; i < kTo; ++i) {
        V q[4];
        apply_a(half[i], q);
        for (int j = 0; j < 4; ++j) {
          q[j].store(to + (4 * (i - kFrom) + j) * stride);
        }
      }
    }
  }
}

// A^T m A of one panel of output channels, plus bias, into the image.
template <class T>
void outputs(const Forward& job, const T* m, int64_t first, int64_t last, int64_t channel) {
  using V = Vec<T>;
  const int64_t stride = place_stride(1, job.block);
  const int64_t width = std::min(kPanel, job.y.channels - channel);
  for (int64_t index = first; index < last; ++index) {
    const Tile tile = tile_at(job.tiling, index);
    T* to[2][2];
    for (int i = 0; i < 2; ++i) {
      for (int j = 0; j < 2; ++j) {
        to[i][j] = pixel<T>(job.y, tile.image, 2 * tile.row + i, 2 * tile.column + j);
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
      const V bias = job.bias == nullptr ? V(T(0)) : V::loadu(static_cast<const T*>(job.bias) + channel + c, count);
      for (int i = 0; i < 2; ++i) {
        V y[2];
        apply_at(half[i], y);
        for (int j = 0; j < 2; ++j) {
          if (to[i][j] != nullptr) {
            (y[j] + bias).store(to[i][j] + channel + c, count);
          }
        }
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

template <class T>
void weights(const Weights& job, int64_t begin, int64_t end) {
  using V = Vec<T>;
  const T* const w = static_cast<const T*>(job.w);
  T* const u = static_cast<T*>(job.u);
  const int64_t stride = panels(job.out) * job.in * kPanel;
  T kernels[9][kPanel] = {};  // of one input channel and a panel of outputs
  for (int64_t panel = begin; panel < end; ++panel) {
    const int64_t width = std::min(kPanel, job.out - panel * kPanel);
    if (width < kPanel) {
      std::fill_n(&kernels[0][0], 9 * kPanel, T(0));
    }
    for (int64_t i = 0; i < job.in; ++i) {
      const T* const from = w + panel * kPanel * job.out_stride + i * job.in_stride;
      for (int64_t lane = 0; lane < width; ++lane) {
        for (int r = 0; r < 3; ++r) {
          for (int c = 0; c < 3; ++c) {
            kernels[3 * r + c][lane] = from[lane * job.out_stride + r * job.row_stride + c * job.column_stride];
          }
        }
      }
      T* const to = u + (panel * job.in + i) * kPanel;
      for (int64_t lane = 0; lane < kPanel; lane += V::size()) {
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
            g[r].store(to + (4 * r + c) * stride + lane);
          }
        }
      }
    }
  }
}

template <class T>
void forward(const Forward& job, int64_t begin, int64_t end, T* scratch) {
  const int64_t in = job.x.channels, out = job.y.channels;
  const int64_t v_stride = place_stride(panels(in), job.block), m_stride = place_stride(1, job.block);
  const int64_t u_stride = panels(out) * in * kPanel;
  T* const v = scratch;
  T* const m = scratch + kPlaces * v_stride;
  for (int64_t first = begin; first < end; first += job.block) {
    const int64_t last = std::min(first + job.block, end);
    // Rows up to a whole strip hold what was there before; their products are not read.
    patches<T, 0, 4>(job.x, job.tiling, first, last, {0, panels(in)}, job.block, v);
    for (int64_t channel = 0; channel < out; channel += kPanel) {
      for (int p = 0; p < kPlaces; ++p) {
        const T* const u = static_cast<const T*>(job.u) + p * u_stride + channel * in;
        over_panel<T>(std::min(kPanel, out - channel), [&](int64_t c, auto n) {
          for (int64_t t = 0; t < last - first; t += kRows<T>) {
            product<T, n()>(
                v + p * v_stride + t * kPanel, job.block, u + c, in, m + p * m_stride + t * kPanel + c);
          }
        });
      }
      outputs<T>(job, m, first, last, channel);
    }
  }
}

// One row of places, and panels [i.begin, i.end) by [o.begin, o.end) of channels.
template <class T, int kRow>
void sums_of_row(const Sums& job, const Range& i, const Range& o, T* scratch) {
  const int64_t out_panels = panels(job.dy.channels), square = kPanel * kPanel;
  const int64_t v_stride = place_stride(i.size(), kChunk), q_stride = place_stride(o.size(), kChunk);
  T* const v = scratch;
  T* const q = scratch + 4 * v_stride;
  T* const sums = static_cast<T*>(job.sums) + 4 * kRow * panels(job.x.channels) * out_panels * square;
  for (int64_t first = 0; first < job.tiles; first += kChunk) {
    const int64_t last = std::min(first + kChunk, job.tiles);
    patches<T, kRow, kRow + 1>(job.x, job.tiling, first, last, i, kChunk, v);
    cotangents<T, kRow, kRow + 1>(job.dy, job.tiling, first, last, o, kChunk, q);
    for (int64_t place = 0; place < 4; ++place) {
      for (int64_t ip = i.begin; ip < i.end; ++ip) {
        const T* const a = v + place * v_stride + (ip - i.begin) * kChunk * kPanel;
        const int64_t rows = std::min(kPanel, job.x.channels - ip * kPanel);
        for (int64_t op = o.begin; op < o.end; ++op) {
          const T* const b = q + place * q_stride + (op - o.begin) * kChunk * kPanel;
          T* const to = sums + ((place * panels(job.x.channels) + ip) * out_panels + op) * square;
          over_panel<T>(std::min(kPanel, job.dy.channels - op * kPanel), [&](int64_t c, auto n) {
            for (int64_t r = 0; r < rows; r += kGradientRows<T>) {
              outer_product<T, n()>(a + r, b + c, last - first, to + r * kPanel + c);
            }
          });
        }
      }
    }
  }
}

template <class T>
void sums(const Sums& job, int64_t begin, int64_t end, T* scratch) {
  constexpr auto kRowsOfPlaces = std::array{&sums_of_row<T, 0>, &sums_of_row<T, 1>, &sums_of_row<T, 2>, &sums_of_row<T, 3>};
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

template <class F>
inline void with_type(bool wide, const F& f) {
  wide ? f(double()) : f(float());
}

}  // namespace

void winograd_weights(bool wide, const Weights& job, int64_t begin, int64_t end) {
  with_type(wide, [&](auto zero) { weights<decltype(zero)>(job, begin, end); });
}

void winograd_forward(bool wide, const Forward& job, int64_t begin, int64_t end, void* scratch) {
  with_type(wide, [&](auto zero) { forward(job, begin, end, static_cast<decltype(zero)*>(scratch)); });
}

void winograd_sums(bool wide, const Sums& job, int64_t begin, int64_t end, void* scratch) {
  with_type(wide, [&](auto zero) { sums(job, begin, end, static_cast<decltype(zero)*>(scratch)); });
}

void winograd_weight_gradient(bool wide, const WeightGradient& job, int64_t begin, int64_t end) {
  with_type(wide, [&](auto zero) { weight_gradient<decltype(zero)>(job, begin, end); });
}

void winograd_transpose(bool wide, const Transposition& job, int64_t begin, int64_t end) {
  with_type(wide, [&](auto zero) { transpose<decltype(zero)>(job, begin, end); });
}

}  // namespace gan_fast::CPU_CAPABILITY
