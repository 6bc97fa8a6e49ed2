// The kernels of `winograd.h`: transforms, whose vectors run over channels, around the products of `winograd_products.h`.

#include <algorithm>
#include <array>
#include <type_traits>

#include "convolution/winograd.h"
#include "convolution/winograd_products.h"
#include "convolution/winograd_vectors.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

using namespace winograd;
using std::int64_t;

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

void winograd_transpose(Storage storage, const Transposition& job, int64_t begin, int64_t end) {
  with_storage(storage, [&](auto zero) { transpose<decltype(zero)>(job, begin, end); });
}

}  // namespace gan_fast::CPU_CAPABILITY
