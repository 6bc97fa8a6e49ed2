#include <cstring>
#include <type_traits>

#include "common/cpu/map_reduce.h"
#include "upfirdn2d/upfirdn2d_rows.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

template <int K>
using Count = std::integral_constant<int, K>;

// f(Count<K>{}) with K = count up to 4, and 0 above (and at 0): loops over taps that are unrolled where they are few.
template <class F>
inline void with_count(int count, const F& f) {
  switch (count) {
    case 1:
      return f(Count<1>{});
    case 2:
      return f(Count<2>{});
    case 3:
      return f(Count<3>{});
    case 4:
      return f(Count<4>{});
    default:
      return f(Count<0>{});
  }
}

// kVectors consecutive vectors of the accumulation type from storage type S; of fewer than kSize numbers the rest is zeros.
template <class S>
struct Block {
  using T = typename Accumulate<S>::T;
  static constexpr int kVectors = sizeof(S) == sizeof(T) ? 1 : 2;
  static constexpr int kSize = kVectors * Vec<T>::size();
  Vec<T> v[kVectors];

  static inline __attribute__((always_inline)) Block load(const S* x, long long count) {
    using VS = Vec<S>;
    const VS in = count >= kSize ? VS::loadu(x) : VS::loadu(x, count);
    if constexpr (kVectors == 1) {
      return {{in}};
    } else {
      const auto [low, high] = at::vec::convert_to_float<S>(in);
      return {{low, high}};
    }
  }
};

// Vertical: dst[i] = sum_m taps[m] x[m stride + i] for i < n, and zeros up to a whole block.
template <class S, class T, int K>
void blend(T* dst, const S* x, long long stride, const T* taps, int count, long long n, Count<K>) {
  using B = Block<S>;
  auto run = [&]<int kBlocks>(long long i, long long left, Count<kBlocks>) __attribute__((always_inline)) {
    Vec<T> sum[kBlocks][B::kVectors];
    for (int m = 0; m < (K ? K : count); ++m) {
      const Vec<T> tap(taps[m]);
      for (int b = 0; b < kBlocks; ++b) {
        const B in = B::load(x + m * stride + i + b * B::kSize, left - b * B::kSize);
        for (int k = 0; k < B::kVectors; ++k) {
          sum[b][k] = m == 0 ? tap * in.v[k] : at::vec::fmadd(tap, in.v[k], sum[b][k]);
        }
      }
    }
    for (int b = 0; b < kBlocks; ++b) {
      for (int k = 0; k < B::kVectors; ++k) {
        sum[b][k].store(dst + i + b * B::kSize + k * Vec<T>::size());
      }
    }
  };
  constexpr int kUnroll = 4 / B::kVectors;
  long long i = 0;
  for (; i + kUnroll * B::kSize <= n; i += kUnroll * B::kSize) {
    run(i, kUnroll * B::kSize, Count<kUnroll>{});
  }
  for (; i + B::kSize <= n; i += B::kSize) {
    run(i, B::kSize, Count<1>{});
  }
  if (i < n) {
    run(i, n - i, Count<1>{});
  }
}

// The taps of one horizontal phase, on a row: sum_m taps[m] x[offset[m] + i].
template <class T>
struct Fir {
  const T* x;
  const int* offset;
  const T* taps;
  int count;

  template <int K, int kVectors>
  inline __attribute__((always_inline)) void at(long long i, Vec<T> (&sum)[kVectors], Count<K>) const {
    for (int k = 0; k < kVectors; ++k) {
      sum[k] = Vec<T>(T(0));
    }
    for (int m = 0; m < (K ? K : count); ++m) {
      const Vec<T> tap(taps[m]);
      for (int k = 0; k < kVectors; ++k) {
        const Vec<T> in = Vec<T>::loadu(x + offset[m] + i + k * Vec<T>::size());
        sum[k] = K != 0 && m == 0 ? tap * in : at::vec::fmadd(tap, in, sum[k]);
      }
    }
  }
};

template <class T>
inline __attribute__((always_inline)) void store(const Vec<T>& v, T* dst, long long count) {
  count >= Vec<T>::size() ? v.store(dst) : v.store(dst, static_cast<int>(count));
}

// dst[i] (+)= fir(i) for i < n; without kAdd the numbers of dst up to `room` may be overwritten with anything.
template <bool kAdd, class T, int K>
void filter(T* dst, const Fir<T>& fir, long long n, long long room, Count<K> k) {
  constexpr int kSize = Vec<T>::size(), kUnroll = 4;
  auto write = [&](const Vec<T>& v, long long i) __attribute__((always_inline)) {
    if constexpr (kAdd) {
      store(v + (n - i >= kSize ? Vec<T>::loadu(dst + i) : Vec<T>::loadu(dst + i, static_cast<int>(n - i))), dst + i, n - i);
    } else {
      store(v, dst + i, n - i >= kSize ? kSize : room - i >= kSize ? kSize : n - i);
    }
  };
  long long i = 0;
  for (; i + kUnroll * kSize <= n; i += kUnroll * kSize) {
    Vec<T> sum[kUnroll];
    fir.at(i, sum, k);
    for (int b = 0; b < kUnroll; ++b) {
      write(sum[b], i + b * kSize);
    }
  }
  for (; i < n; i += kSize) {
    Vec<T> sum[1];
    fir.at(i, sum, k);
    write(sum[0], i);
  }
}

// dst[2 j + r] = fir_r(j) for 2 j + r < n
template <class T, int K>
void filter_pairs(T* dst, const Fir<T>& even, const Fir<T>& odd, long long n, Count<K> k) {
  constexpr int kSize = Vec<T>::size(), kUnroll = K ? 1 : 2;
  for (long long i = 0; i < n; i += 2 * kUnroll * kSize) {
    Vec<T> a[kUnroll], b[kUnroll];
    even.at(i / 2, a, k);
    odd.at(i / 2, b, k);
    for (int u = 0; u < kUnroll; ++u) {
      const auto [low, high] = at::vec::interleave2<T>(a[u], b[u]);
      const long long left = n - i - 2 * u * kSize;
      if (left > 0) {
        store(low, dst + i + 2 * u * kSize, left);
      }
      if (left > kSize) {
        store(high, dst + i + (2 * u + 1) * kSize, left - kSize);
      }
    }
  }
}

// The `step` interleaved parts of a row of n numbers, each `stream` elements from the one before.
template <class T>
void split(T* parts, const T* row, long long n, long long step, long long stream) {
  constexpr int kSize = Vec<T>::size();
  if (step == 2) {
    for (long long i = 0; i < n; i += 2 * kSize) {
      const auto [even, odd] = at::vec::deinterleave2<T>(Vec<T>::loadu(row + i), Vec<T>::loadu(row + i + kSize));
      even.store(parts + i / 2);
      odd.store(parts + stream + i / 2);
    }
    return;
  }
  for (long long d = 0; d < step; ++d) {
    for (long long j = 0; d + j * step < n; ++j) {
      parts[d * stream + j] = row[d + j * step];
    }
  }
}

// Horizontal: `columns` results from a blended row, with the taps of one matrix row.
template <bool kAdd, class T>
void filter_row(const UpfirdnRows& a, T* dst, T* scratch, const T* taps, long long columns) {
  const UpfirdnAxis& h = a.horizontal;
  const T* row = scratch;
  auto phase = [&](long long r, const T* x) __attribute__((always_inline)) {
    return Fir<T>{x, a.offset + r * h.width, taps + r * h.width, h.count[r]};
  };
  if (a.inner > 1) {
    if (h.phases == 1 && h.step == 1) {
      const Fir<T> fir = phase(0, row);
      with_count(fir.count, [&](auto k) { filter<kAdd>(dst, fir, columns * a.inner, columns * a.inner, k); });
      return;
    }
    with_count(h.every, [&](auto k) {
      for (long long o = 0, r = 0, j = 0; o < columns; ++o) {
        filter<kAdd>(dst + o * a.inner, phase(r, row + j * h.step * a.inner), a.inner, (columns - o) * a.inner, k);
        if (++r == h.phases) {
          r = 0;
          ++j;
        }
      }
    });
    return;
  }
  if (h.step > 1) {
    split(scratch + a.split_at, row, a.tile_in, h.step, a.stream);
    row = scratch + a.split_at;
  }
  if (h.phases == 1) {
    const Fir<T> fir = phase(0, row);
    with_count(fir.count, [&](auto k) { filter<kAdd>(dst, fir, columns, columns, k); });
    return;
  }
  if (!kAdd && h.phases == 2) {
    const Fir<T> even = phase(0, row), odd = phase(1, row);
    with_count(h.every, [&](auto k) { filter_pairs(dst, even, odd, columns, k); });
    return;
  }
  for (long long r = 0; r < h.phases && r < columns; ++r) {
    const Fir<T> fir = phase(r, row);
    T* one = scratch + a.phase_at;
    const long long n = (columns - r + h.phases - 1) / h.phases;
    with_count(fir.count, [&](auto k) { filter<false>(one, fir, n, n, k); });
    for (long long j = 0; j < n; ++j) {
      dst[j * h.phases + r] = kAdd ? dst[j * h.phases + r] + one[j] : one[j];
    }
  }
}

// Result rows [begin, end) of one plane.
template <class S>
void rows_of_plane(const UpfirdnRows& a, long long plane, long long begin, long long end, void* memory) {
  using T = typename Accumulate<S>::T;
  T* const row = static_cast<T*>(memory);
  const UpfirdnAxis &v = a.vertical, &h = a.horizontal;
  const S* x = static_cast<const S*>(a.x) + plane / a.channels * a.x_sample + plane % a.channels * a.x_channel;
  S* y = static_cast<S*>(a.y) + plane * a.out_height * a.out_width * a.inner;
  const T* across = static_cast<const T*>(h.taps);
  for (long long column = 0; column < a.out_width; column += a.tile) {
    const long long columns = a.out_width - column < a.tile ? a.out_width - column : a.tile;
    // The blended row holds input columns [first, first + tile_in); those outside of the image stay zero.
    const long long first = column / h.phases * h.step + a.lowest;
    const long long inside = first > 0 ? first : 0;
    const long long last = first + a.tile_in < a.in_width ? first + a.tile_in : a.in_width;
    const long long n = last > inside ? (last - inside) * a.inner : 0;
    std::memset(row, 0, a.tile_in * a.inner * sizeof(T));
    T* const blended = row + (inside - first) * a.inner;
    long long r = begin % v.phases, start = begin / v.phases * v.step;  // of row o = j P + r: r and j D
    for (long long o = begin; o < end; ++o, ++r) {
      if (r == v.phases) {
        r = 0;
        start += v.step;
      }
      const long long top = start + v.first[r];
      const int above = top < 0 ? (top < -v.count[r] ? v.count[r] : static_cast<int>(-top)) : 0;
      const long long below = a.in_height - top;
      const int stop = below < v.count[r] ? (below < 0 ? 0 : static_cast<int>(below)) : v.count[r];
      S* out = y + (o * a.out_width + column) * a.inner;
      if (stop <= above || n == 0) {
        std::memset(static_cast<void*>(out), 0, columns * a.inner * sizeof(S));
        continue;
      }
      const S* in = x + (top + above) * a.x_row + inside * a.inner;
      constexpr bool kConverts = sizeof(S) != sizeof(T);
      T* dst = reinterpret_cast<T*>(out);
      if (kConverts || !a.separable) {
        dst = row + a.result_at;
      }
      if (a.separable) {
        const T* down = static_cast<const T*>(v.taps) + r * v.width + above;
        with_count(stop - above, [&](auto k) { blend(blended, in, a.x_row, down, stop - above, n, k); });
        filter_row<false>(a, dst, row, across, columns);
      } else {
        const T one(1);
        std::memset(dst, 0, columns * a.inner * sizeof(T));
        for (int m = above; m < stop; ++m, in += a.x_row) {
          blend(blended, in, a.x_row, &one, 1, n, Count<1>{});
          filter_row<true>(a, dst, row, across + (v.tap[r] + m * v.tap_step) * h.phases * h.width, columns);
        }
      }
      if constexpr (kConverts) {
        store_block<S, T>(dst, out, 0, columns * a.inner);
      } else if (!a.separable) {
        std::memcpy(out, dst, columns * a.inner * sizeof(S));
      }
    }
  }
}

template <class S>
void rows(const UpfirdnRows& a, long long begin, long long end, void* memory) {
  for (long long i = begin; i < end;) {
    const long long plane = i / a.out_height, start = i % a.out_height;
    const long long stop = end - i < a.out_height - start ? start + end - i : a.out_height;
    rows_of_plane<S>(a, plane, start, stop, memory);
    i += stop - start;
  }
}

}  // namespace

void upfirdn2d_rows(int storage, const UpfirdnRows& a, long long begin, long long end, void* memory) {
  switch (storage) {
    case 0:
      return rows<float>(a, begin, end, memory);
    case 1:
      return rows<double>(a, begin, end, memory);
    case 2:
      return rows<c10::BFloat16>(a, begin, end, memory);
    default:
      return rows<c10::Half>(a, begin, end, memory);
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
