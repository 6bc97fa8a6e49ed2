// One pass of filtered_lrelu.h on the CPU: rows of t stream through a few kilobytes of scratch that stay in the first cache.
//
// A row in scratch is [phases][columns][channels]: of one channel in NCHW, of a block of them in channels_last. There every
// filter along x or y, up or down, is one operation, `combine`: a sum of weighted rows, each a pointer into the scratch.
// An input row is filtered along x when it is first needed, 4 rows of t at a time are combined from those (4 rows share the
// bytes of the mask), and an output row is made when its last row of t is there.

#include <cstring>

#include "filtered_lrelu/filtered_lrelu_sums.h"

namespace gan_fast::CPU_CAPABILITY {
namespace {

// Scratch that the rows in use may fill, in bytes: what decides how many columns are taken at a time.
constexpr long long kScratch = 64 * 1024;

// Which taps of a filter a phase reads along x, and where.
struct PhaseTaps {
  Buffer<int> index, count;
  Buffer<long long> offset;
  int most;
  PhaseTaps(int phases, int most_) : index(phases * most_), count(phases), offset(phases * most_), most(most_) {}
  void add(int phase, int tap, long long where) {
    int& n = count.get()[phase];
    index.get()[phase * most + n] = tap;
    offset.get()[phase * most + n] = where;
    ++n;
  }
};

template <class S>
class Rows {
 public:
  using T = typename Accumulate<S>::T;

  explicit Rows(const FilterPass& pass)
      : p(pass), x(pass.horizontal), y(pass.vertical), in_phases(p.phases / p.up), out_phases(p.phases / p.down), most_channels(channel_block(p)),
        ring_t(y.down_taps + 2 * kRows), ring_a((y.up_taps + kRows) / p.up + 3), tile(tile_columns()), tiles(ceil_divide(x.out, tile)),
        columns(ceil_divide(at_least(p.down * tile, p.down * (tile - 1) + x.down_taps), p.phases)), hu(taps(p.hu_matrix, x.up_taps, y.up_taps)),
        hd(taps(p.hd_matrix, x.down_taps, y.down_taps)), up_taps(p.phases, x.up_taps), down_taps(out_phases, x.down_taps),
        in_first(first_input()), in_columns(input_columns()), slack(4 * most_channels + 4 * Vec<T>::size()),
        t_stride(aligned(p.phases * columns * most_channels + slack)), in_stride(aligned(in_phases * in_columns * most_channels + slack)),
        a_stride(p.hu_matrix ? in_stride : t_stride), t_rows(ring_t * t_stride), a_rows(ring_a * a_stride), in_row(in_stride), b_row(t_stride),
        out_row(2 * t_stride), run_row(at_least(in_phases * in_columns, x.out) * most_channels + slack), codes(t_stride), slope_rows(kRows * t_stride),
        bytes(t_stride), pointers(kRows * most_taps()), weights(kRows * most_taps()), gains{static_cast<T>(p.pos), static_cast<T>(p.neg), static_cast<T>(p.limit)} {
    find_taps();
  }

  // Output rows [first, last) of channels [c, c + channels) of a sample.
  void run(long long sample_, long long c_, long long channels_, long long first, long long last) {
    sample = sample_;
    c = c_;
    L = channels_;
    for (long long k = 0; k < tiles; ++k) run_tile(k * tile, first, last);
  }

 private:
  const FilterPass& p;
  const FilterAxis &x, &y;
  const long long in_phases, out_phases, most_channels, ring_t, ring_a, tile, tiles, columns;
  // Filters as read, rows of taps, or one row (height 1) for both axes.
  Buffer<T> hu, hd;
  PhaseTaps up_taps, down_taps;
  const long long in_first, in_columns, slack, t_stride, in_stride, a_stride;
  Buffer<T> t_rows, a_rows, in_row, b_row, out_row, run_row, codes, slope_rows;
  Buffer<unsigned char> bytes;
  Buffer<const T*> pointers;
  Buffer<T> weights;
  const Gains<T> gains;
  long long sample = 0, c = 0, L = 1;

  static long long aligned(long long n) { return ceil_divide(n, 16) * 16; }

  static long long taps(bool matrix, int width, int height) { return matrix ? static_cast<long long>(width) * height : width; }

  long long tile_columns() const {
    const long long rows = ring_t + ring_a + 2 * kRows;
    const long long width = kScratch / static_cast<long long>(sizeof(T)) / (rows * most_channels);  // of t
    const long long unit = p.phases / p.down;
    const long long fits = at_least((width - x.down_taps) / p.down / unit * unit, at_least(16 / unit, 1) * unit);
    const long long count = ceil_divide(x.out, fits);
    return ceil_divide(ceil_divide(x.out, count), unit) * unit;
  }

  long long most_taps() const {
    return at_least(taps(p.hu_matrix, x.up_taps, y.up_taps), taps(p.hd_matrix, x.down_taps, y.down_taps));
  }

  // The first entry of the input that column 0 of t reads, rounded down to phase 0 of the input.
  long long first_input() const {
    return floor_divide(ceil_divide(-x.start, p.up), in_phases) * in_phases;
  }
  long long input_columns() const {
    const long long last = floor_divide(p.phases - 1 + x.up_taps - 1 - x.start, p.up);
    return at_least(floor_divide(last - in_first, in_phases), 0) + columns;
  }

  void find_taps() {
    fill(p.hu, taps(p.hu_matrix, x.up_taps, y.up_taps), hu.get());
    fill(p.hd, taps(p.hd_matrix, x.down_taps, y.down_taps), hd.get());
    for (int phase = 0; phase < p.phases; ++phase) {
      for (int k = 0; k < x.up_taps; ++k) {
        const long long u = phase + k - x.start;
        if (u % p.up == 0) {
          const long long i = u / p.up - in_first;
          up_taps.add(phase, k, i % in_phases * in_columns + i / in_phases);
        }
      }
    }
    for (int phase = 0; phase < out_phases; ++phase) {
      for (int k = 0; k < x.down_taps; ++k) {
        const long long i = static_cast<long long>(p.down) * phase + k;
        down_taps.add(phase, k, i % p.phases * columns + i / p.phases);
      }
    }
  }

  void fill(const void* f, long long n, T* out) const {
    if (f == nullptr) {
      out[0] = T(1);
      return;
    }
    for (long long i = 0; i < n; ++i) out[i] = static_cast<const T*>(f)[p.reversed ? n - 1 - i : i];
  }

  Sum<T> sum(int slot) { return {pointers.get() + slot * most_taps(), weights.get() + slot * most_taps(), 0}; }
  static void add(Sum<T>& s, const T* at, T weight) {
    s.at[s.count] = at;
    s.weight[s.count++] = weight;
  }

  T* a_row(long long row) const { return a_rows.get() + row % ring_a * a_stride; }
  T* t_row(long long row) const { return t_rows.get() + row % ring_t * t_stride; }

  // ---- Input

  // Entries [begin, end) of an input row, [entry][channel], with the bias.
  void read_run(long long row, long long begin, long long end, T* out) const {
    const S* source = static_cast<const S*>(p.x);
    const T* bias = static_cast<const T*>(p.bias);
    if (!p.channels_last) {
      const long long at = ((sample * p.channels + c) * y.in + row) * x.in;
      copy_in(source + at + begin, end - begin, out);
      if (bias != nullptr) {
        for (long long i = 0; i < end - begin; ++i) out[i] += bias[c];
      }
      return;
    }
    for (long long i = begin; i < end; ++i, out += L) {
      copy_in(source + ((sample * y.in + row) * x.in + i) * p.channels + c, L, out);
      if (bias != nullptr) {
        for (long long l = 0; l < L; ++l) out[l] += bias[c + l];
      }
    }
  }

  static void copy_in(const S* source, long long n, T* out) {
    const T* read = load_block<S, T>(source, 0, n, out);
    if (read != out) std::memcpy(out, read, static_cast<size_t>(n) * sizeof(T));
  }

  // The entries that t's columns from `column` on read, in phases, zero outside the image.
  void read_row(long long row, long long column, T* out) const {
    const long long first = in_first + column / p.up, count = in_phases * in_columns;
    const long long begin = at_least(first, 0), end = at_most(first + count, x.in);
    if (begin >= end) {
      std::memset(static_cast<void*>(out), 0, static_cast<size_t>(count * L) * sizeof(T));
      return;
    }
    T* run = in_phases == 1 ? out : run_row.get();
    std::memset(static_cast<void*>(run), 0, static_cast<size_t>((begin - first) * L) * sizeof(T));
    read_run(row, begin, end, run + (begin - first) * L);
    std::memset(static_cast<void*>(run + (end - first) * L), 0, static_cast<size_t>((first + count - end) * L) * sizeof(T));
    for (long long phase = 0; in_phases > 1 && phase < in_phases; ++phase) {
      T* target = out + phase * in_columns * L;
      for (long long m = 0; m < in_columns; ++m) {
        for (long long l = 0; l < L; ++l) target[m * L + l] = run[(m * in_phases + phase) * L + l];
      }
    }
  }

  void make_a_row(long long row, long long column) {
    if (p.hu_matrix) {
      read_row(row, column, a_row(row));
      return;
    }
    read_row(row, column, in_row.get());
    for (int phase = 0; phase < p.phases; ++phase) {  // in order: each may write a little into the next one's place
      Sum<T> s = sum(0);
      add_columns(s, up_taps, phase, in_row.get(), hu.get());
      combine(s, a_row(row) + phase * columns * L, columns * L);
    }
  }

  void add_columns(Sum<T>& s, const PhaseTaps& taps, int phase, const T* row, const T* weight) const {
    for (int n = 0; n < taps.count.get()[phase]; ++n) {
      add(s, row + taps.offset.get()[phase * taps.most + n] * L, weight[taps.index.get()[phase * taps.most + n]]);
    }
  }

  // ---- t

  // The input rows that a row of t is made of; of a matrix, those entries that a phase of it is.
  void add_a_rows(Sum<T>& s, long long t, int phase) {
    const int begin = static_cast<int>(t - y.start);  // of the row that tap 0 reads, in the upsampled image
    int row = begin <= 0 ? 0 : (begin + p.up - 1) / p.up;
    int slot = row % static_cast<int>(ring_a);
    for (int k = row * p.up - begin; k < y.up_taps && row < y.in; k += p.up, ++row) {
      const T* at = a_rows.get() + slot * a_stride;
      if (p.hu_matrix) {
        add_columns(s, up_taps, phase, at, hu.get() + k * x.up_taps);
      } else {
        add(s, at, hu.get()[k]);
      }
      slot = slot + 1 == ring_a ? 0 : slot + 1;
    }
  }

  // t's rows [first, first + 4), of which those in [begin, end) are wanted.
  void make_t_rows(long long first, long long begin, long long end) {
    T* out[kRows];
    const T* slope[kRows];
    for (int r = 0; r < kRows; ++r) {
      const long long row = first + r;
      out[r] = row >= begin && row < end ? t_row(row) : nullptr;
      slope[r] = slope_rows.get() + r * t_stride;
    }
    const int parts = p.hu_matrix ? p.phases : 1;
    const long long n = p.phases * columns * L / parts;
    for (int part = 0; part < parts; ++part) {
      Sum<T> sums[kRows] = {sum(0), sum(1), sum(2), sum(3)};
      for (int r = 0; r < kRows; ++r) {
        if (out[r] != nullptr) add_a_rows(sums[r], first + r, part);
      }
      const long long at = part * n;
      T* place[kRows];
      const T* slope_place[kRows];
      for (int r = 0; r < kRows; ++r) {
        place[r] = out[r] == nullptr ? nullptr : out[r] + at;
        slope_place[r] = slope[r] + at;
      }
      if (p.use == MaskUse::Write) {
        combine_rows<T, MaskUse::Write>(sums, place, gains, slope_place, codes.get() + at, n);
      } else if (p.use == MaskUse::Read) {
        combine_rows<T, MaskUse::Read>(sums, place, gains, slope_place, nullptr, n);
      } else {
        combine_rows<T, MaskUse::None>(sums, place, gains, slope_place, nullptr, n);
      }
    }
  }

  // ---- The mask

  unsigned char* mask_at(long long row, long long entry) const {
    const long long width = p.phases * mask_columns(p);
    return p.mask + (p.channels_last ? ((sample * mask_rows(p) + row) * width + entry) * p.channels + c
                                     : ((sample * p.channels + c) * mask_rows(p) + row) * width + entry);
  }

  void write_mask(long long row, long long column) {
    const long long n = p.phases * columns * L;
    unsigned char* b = bytes.get();
    const T* code = codes.get();
    for (long long e = 0; e < n; ++e) b[e] = static_cast<unsigned char>(static_cast<int>(code[e]));
    const long long first = column / p.phases, count = at_most(columns, mask_columns(p) - first);
    for (int phase = 0; phase < p.phases; ++phase) {
      const unsigned char* from = b + phase * columns * L;
      unsigned char* to = mask_at(row, phase * mask_columns(p) + first);
      if (!p.channels_last || L == p.channels) {
        std::memcpy(to, from, static_cast<size_t>(count * L));
        continue;
      }
      for (long long m = 0; m < count; ++m) std::memcpy(to + m * p.channels, from + m * L, static_cast<size_t>(L));
    }
  }

  // Slopes of 4 rows of t that lie in one row of bytes; zero outside the mask, where nothing of t is not zero.
  void read_mask(long long row, long long column) {
    unsigned char* b = bytes.get();
    constexpr int outside = kClamped * 0x55;
    std::memset(b, outside, static_cast<size_t>(p.phases * columns * L));
    for (int phase = 0; phase < p.phases && row >= 0 && row < mask_rows(p); ++phase) {
      const long long i = column + phase + x.offset, first = floor_divide(i, p.phases), stored = i - first * p.phases;
      const long long begin = at_least(-first, 0), end = at_most(columns, mask_columns(p) - first);
      unsigned char* to = b + phase * columns * L;
      if (begin >= end) continue;
      const unsigned char* from = mask_at(row, stored * mask_columns(p) + first);
      if (!p.channels_last || L == p.channels) {
        std::memcpy(to + begin * L, from + begin * L, static_cast<size_t>((end - begin) * L));
        continue;
      }
      for (long long m = begin; m < end; ++m) std::memcpy(to + m * L, from + m * p.channels, static_cast<size_t>(L));
    }
    T* slope[kRows];
    for (int r = 0; r < kRows; ++r) slope[r] = slope_rows.get() + r * t_stride;
    slopes_of(b, p.phases * columns * L, gains, slope);
  }

  // ---- Output

  void make_output_row(long long row, long long column) {
    const long long outs = tile / out_phases;
    const int oldest = static_cast<int>(row * p.down % ring_t);
    if (!p.hd_matrix) {
      Sum<T> s = sum(0);
      for (int k = 0, slot = oldest; k < y.down_taps; ++k, slot = slot + 1 == ring_t ? 0 : slot + 1) {
        add(s, t_rows.get() + slot * t_stride, hd.get()[k]);
      }
      combine(s, b_row.get(), p.phases * columns * L);
    }
    for (int phase = 0; phase < out_phases; ++phase) {
      Sum<T> s = sum(0);
      if (p.hd_matrix) {
        for (int k = 0, slot = oldest; k < y.down_taps; ++k, slot = slot + 1 == ring_t ? 0 : slot + 1) {
          add_columns(s, down_taps, phase, t_rows.get() + slot * t_stride, hd.get() + k * x.down_taps);
        }
      } else {
        add_columns(s, down_taps, phase, b_row.get(), hd.get());
      }
      combine(s, out_row.get() + phase * outs * L, outs * L);
    }
    const long long count = at_most(tile, x.out - column);
    const T* run = out_row.get();
    if (out_phases > 1) {
      for (long long j = 0; j < count; ++j) {
        const T* from = out_row.get() + (j % out_phases * outs + j / out_phases) * L;
        for (long long l = 0; l < L; ++l) run_row.get()[j * L + l] = from[l];
      }
      run = run_row.get();
    }
    S* target = static_cast<S*>(p.y);
    if (!p.channels_last) {
      copy_out(run, target + ((sample * p.channels + c) * y.out + row) * x.out + column, count);
      return;
    }
    for (long long j = 0; j < count; ++j) {
      copy_out(run + j * L, target + ((sample * y.out + row) * x.out + column + j) * p.channels + c, L);
    }
  }

  static void copy_out(const T* run, S* target, long long n) {
    if constexpr (sizeof(S) == sizeof(T)) {
      std::memcpy(target, run, static_cast<size_t>(n) * sizeof(T));
    } else {
      store_block<S, T>(run, target, 0, n);
    }
  }

  // ---- The order of it all

  void run_tile(long long out_column, long long first, long long last) {
    const long long column = out_column * p.down;
    const long long begin = first * p.down;
    long long end = (last - 1) * p.down + y.down_taps;
    if (p.use == MaskUse::Write) end = last == y.out ? y.width : at_least(end, last * p.down);
    // Rows of this chunk in the mask; those from last * down on belong to the next chunk.
    const long long mask_end = last == y.out ? y.width : last * p.down;
    long long next_a = at_least(ceil_divide(begin - y.start, p.up), 0), next_out = first;
    for (long long t = floor_divide(begin + y.offset, kRows) * kRows - y.offset; t < end; t += kRows) {
      const long long needed = at_most(floor_divide(at_most(t + kRows, end) - 1 + y.up_taps - 1 - y.start, p.up), y.in - 1);
      for (; next_a <= needed; ++next_a) make_a_row(next_a, column);
      if (p.use == MaskUse::Read) read_mask((t + y.offset) / kRows, column);
      make_t_rows(t, begin, end);
      if (p.use == MaskUse::Write && t < mask_end) write_mask(t / kRows, column);
      for (; next_out < last && next_out * p.down + y.down_taps <= t + kRows; ++next_out) make_output_row(next_out, out_column);
    }
  }
};

template <class S>
void run_rows(const FilterPass& p, long long chunk_rows, long long begin, long long end) {
  Rows<S> rows(p);
  const long long block = channel_block(p), blocks = ceil_divide(p.channels, block), chunks = ceil_divide(p.vertical.out, chunk_rows);
  for (long long task = begin; task < end; ++task) {
    const long long plane = task / chunks, chunk = task % chunks, c = plane % blocks * block;
    rows.run(plane / blocks, c, at_most(block, p.channels - c), chunk * chunk_rows, at_most((chunk + 1) * chunk_rows, p.vertical.out));
  }
}

}  // namespace

// Tasks [begin, end): task t is chunk t % chunks of `chunk_rows` output rows of plane t / chunks.
void filtered_lrelu_rows(int storage, const FilterPass& pass, long long chunk_rows, long long begin, long long end) {
  switch (storage) {
    case 0:
      return run_rows<float>(pass, chunk_rows, begin, end);
    case 1:
      return run_rows<double>(pass, chunk_rows, begin, end);
    case 2:
      return run_rows<c10::BFloat16>(pass, chunk_rows, begin, end);
    default:
      return run_rows<c10::Half>(pass, chunk_rows, begin, end);
  }
}

}  // namespace gan_fast::CPU_CAPABILITY
