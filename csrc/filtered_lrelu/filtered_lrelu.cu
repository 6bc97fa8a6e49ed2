// filtered_lrelu.h on the card: a block per tile of results, the image between the filters in shared memory only.
#include "common/cuda/device.h"
#include "filtered_lrelu/filtered_lrelu_arguments.h"

namespace gan_fast::cuda {

// a / b rounded down, for b > 0 whose log2 is shift if that is not negative.
__device__ __forceinline__ int divide(int a, int b, int shift) {
  if (shift >= 0) return a >> shift;
  const int q = a / b;
  return q * b > a ? q - 1 : q;
}

// The taps tap, tap + up, ... that reach an entry of t, and the entry of the tile's input that the first one reads.
struct Reach {
  int tap, entry;
};
__device__ __forceinline__ Reach reach(int begin, int first_entry, const FilteredLreluArguments& a) {
  const int entry = -divide(-begin, a.pass.up, a.up_shift);
  return {entry * a.pass.up - begin, entry - first_entry};
}

// A block's place.
struct Tile {
  long long sample, channel;
  int out_x, out_y;      // its first result
  int t_x, t_y;          // the first entry of t in shared memory
  int first_x, first_y;  // the first entry of the input in shared memory
  bool last_x, last_y;
};

__device__ __forceinline__ Tile tile_of(const FilteredLreluArguments& a) {
  const FilterPass& p = a.pass;
  const long long tiles = a.tiles_x * a.tiles_y;
  long long index = blockIdx.x, plane, tile;
  if (p.channels_last) {  // neighbours in memory at the same time
    const long long c = index % p.channels;
    index /= p.channels;
    tile = index % tiles;
    plane = index / tiles * p.channels + c;
  } else {
    tile = index % tiles;
    plane = index / tiles;
  }
  Tile t;
  t.sample = plane / p.channels;
  t.channel = plane % p.channels;
  const int tx = (int)(tile % a.tiles_x), ty = (int)(tile / a.tiles_x);
  t.out_x = tx * a.tile_w;
  t.out_y = ty * a.tile_h;
  t.last_x = tx + 1 == (int)a.tiles_x;
  t.last_y = ty + 1 == (int)a.tiles_y;
  t.t_x = t.out_x * p.down;
  // begins with a byte of the mask
  const int y = t.out_y * p.down, offset = (int)p.vertical.offset;
  t.t_y = (((y + offset) >> 2) << 2) - offset;
  t.first_x = -divide(-(t.t_x - (int)p.horizontal.start), p.up, a.up_shift);
  t.first_y = -divide(-(t.t_y - (int)p.vertical.start), p.up, a.up_shift);
  return t;
}

__device__ __forceinline__ long long image_at(const FilterPass& p, const Tile& t, long long height, long long width, long long y, long long x) {
  return p.channels_last ? ((t.sample * height + y) * width + x) * p.channels + t.channel
                         : ((t.sample * p.channels + t.channel) * height + y) * width + x;
}

template <class T>
__device__ __forceinline__ void load_taps(const void* f, int count, bool reversed, T* out) {
  for (int i = threadIdx.x; i < count; i += kFilterThreads) {
    out[i] = f ? static_cast<const T*>(f)[reversed ? count - 1 - i : i] : T(1);
  }
}

template <class S, class T>
__device__ __forceinline__ void load_input(const FilteredLreluArguments& a, const Tile& t, T* in) {
  const FilterPass& p = a.pass;
  const S* x = static_cast<const S*>(p.x);
  const T bias = p.bias ? static_cast<const T*>(p.bias)[t.channel] : T(0);
#pragma unroll 1
  for (int i = threadIdx.x; i < a.in_w * a.in_h; i += kFilterThreads) {
    const int iy = i / a.in_w, row = t.first_y + iy, column = t.first_x + i - iy * a.in_w;
    const bool inside = row >= 0 && row < p.vertical.in && column >= 0 && column < p.horizontal.in;
    in[i] = inside ? widen(x[image_at(p, t, p.vertical.in, p.horizontal.in, row, column)]) + bias : T(0);
  }
}

// Rows of the input, filtered along x to t's columns.
template <class T>
__device__ __forceinline__ void filter_rows(const FilteredLreluArguments& a, const Tile& t, const T* hu, const T* in, T* out) {
  const FilterPass& p = a.pass;
#pragma unroll 1
  for (int i = threadIdx.x; i < a.t_w * a.in_h; i += kFilterThreads) {
    const int row = i / a.t_w, column = i - row * a.t_w;
    const Reach r = reach(t.t_x + column - (int)p.horizontal.start, t.first_x, a);
    const T* source = in + row * a.in_w + r.entry;
    T sum = 0;
    for (int k = r.tap; k < p.horizontal.up_taps; k += p.up) sum += hu[k] * *source++;
    out[i] = sum;
  }
}

// One entry of t before the leaky ReLU.
template <class T>
__device__ __forceinline__ T entry_of_t(const FilteredLreluArguments& a, const Tile& t, const T* hu, const T* source, int row, int column) {
  const FilterPass& p = a.pass;
  const Reach y = reach(t.t_y + row - (int)p.vertical.start, t.first_y, a);
  T sum = 0;
  if (p.hu_matrix) {
    const Reach x = reach(t.t_x + column - (int)p.horizontal.start, t.first_x, a);
    const T* from = source + y.entry * a.in_w + x.entry;
    for (int k = y.tap; k < p.vertical.up_taps; k += p.up, from += a.in_w) {
      const T* at = from;
      for (int l = x.tap; l < p.horizontal.up_taps; l += p.up) sum += hu[k * p.horizontal.up_taps + l] * *at++;
    }
  } else {
    const T* at = source + y.entry * a.t_w + column;
    for (int k = y.tap; k < p.vertical.up_taps; k += p.up, at += a.t_w) sum += hu[k] * *at;
  }
  return sum;
}

__device__ __forceinline__ unsigned char* mask_at(const FilteredLreluArguments& a, const Tile& t, int row, int column) {
  const FilterPass& p = a.pass;
  const long long columns = mask_columns(p);
  const int m = divide(column, p.phases, a.phase_shift);
  return p.mask + image_at(p, t, mask_rows(p), p.phases * columns, row, (column - m * p.phases) * columns + m);
}

// t with its leaky ReLU, and the mask written or read: a thread takes 4 rows, which share a byte of it.
template <class T>
__device__ __forceinline__ void make_t(const FilteredLreluArguments& a, const Tile& t, const T* hu, const T* source, T* out) {
  const FilterPass& p = a.pass;
  const T pos = (T)p.pos, neg = (T)p.neg, limit = (T)p.limit;
#pragma unroll 1
  for (int i = threadIdx.x; i < a.t_w * (a.t_h / 4); i += kFilterThreads) {
    const int group = i / a.t_w, column = i - group * a.t_w;
    const int mask_row = (t.t_y + (int)p.vertical.offset) / 4 + group, mask_column = t.t_x + (int)p.horizontal.offset + column;
    unsigned byte = 0;
    if (p.use == MaskUse::Read) {
      const bool inside = mask_row >= 0 && mask_row < mask_rows(p) && mask_column >= 0 && mask_column < p.horizontal.mask;
      byte = inside ? *mask_at(a, t, mask_row, mask_column) : kClamped * 0x55;
    }
#pragma unroll 1
    for (int r = 0; r < 4; ++r) {
      const int row = 4 * group + r;
      T v = entry_of_t(a, t, hu, source, row, column);
      if (p.use == MaskUse::Read) {
        const unsigned code = byte >> (2 * r) & 3;
        v *= code == kPositive ? pos : code == kNegative ? neg : T(0);
      } else {
        const bool positive = v > T(0);
        v *= positive ? pos : neg;
        const bool clamped = v > limit || v < -limit;
        if (clamped) v = v > T(0) ? limit : -limit;
        if (t.t_y + row < p.vertical.mask) byte |= (clamped ? kClamped : positive ? kPositive : kNegative) << (2 * r);
      }
      out[row * a.t_w + column] = v;
    }
    if (p.use == MaskUse::Write) {
      const bool ours_y = t.last_y || 4 * group < a.tile_h * p.down, ours_x = t.last_x || column < a.tile_w * p.down;
      const bool inside = mask_row < mask_rows(p) && mask_column < p.phases * mask_columns(p);
      if (ours_x && ours_y && inside) *mask_at(a, t, mask_row, mask_column) = (unsigned char)byte;
    }
  }
}

template <class T>
__device__ __forceinline__ void filter_columns(const FilteredLreluArguments& a, const Tile& t, const T* hd, const T* in, T* out) {
  const FilterPass& p = a.pass;
  const int skipped = t.out_y * p.down - t.t_y;
#pragma unroll 1
  for (int i = threadIdx.x; i < a.t_w * a.tile_h; i += kFilterThreads) {
    const int row = i / a.t_w, column = i - row * a.t_w;
    const T* at = in + (row * p.down + skipped) * a.t_w + column;
    T sum = 0;
    for (int k = 0; k < p.vertical.down_taps; ++k, at += a.t_w) sum += hd[k] * *at;
    out[i] = sum;
  }
}

template <class S, class T>
__device__ __forceinline__ void store_tile(const FilteredLreluArguments& a, const Tile& t, const T* hd, const T* between, const T* b) {
  const FilterPass& p = a.pass;
  const int skipped = t.out_y * p.down - t.t_y;
#pragma unroll 1
  for (int i = threadIdx.x; i < a.tile_w * a.tile_h; i += kFilterThreads) {
    const int row = i / a.tile_w, column = i - row * a.tile_w;
    const int y = t.out_y + row, x = t.out_x + column;
    if (y >= p.vertical.out || x >= p.horizontal.out) continue;
    T sum = 0;
    if (p.hd_matrix) {
      const T* from = between + (row * p.down + skipped) * a.t_w + column * p.down;
      for (int k = 0; k < p.vertical.down_taps; ++k, from += a.t_w) {
        for (int l = 0; l < p.horizontal.down_taps; ++l) sum += hd[k * p.horizontal.down_taps + l] * from[l];
      }
    } else {
      const T* from = b + row * a.t_w + column * p.down;
      for (int l = 0; l < p.horizontal.down_taps; ++l) sum += hd[l] * from[l];
    }
    narrow(sum, static_cast<S*>(p.y)[image_at(p, t, p.vertical.out, p.horizontal.out, y, x)]);
  }
}

template <class S>
__device__ __forceinline__ void filtered_lrelu(const FilteredLreluArguments& a) {
  using T = typename Accumulate<S>::T;
  GAN_FAST_DYNAMIC_SHARED(unsigned char, memory);
  T* shared = reinterpret_cast<T*>(memory);
  T *hu = shared, *hd = shared + a.hd_at, *in = shared + a.in_at, *filtered = shared + a.a_at, *between = shared + a.t_at, *b = shared + a.b_at;
  const Tile t = tile_of(a);
  load_taps(a.pass.hu, a.hu_count, a.pass.reversed, hu);
  load_taps(a.pass.hd, a.hd_count, a.pass.reversed, hd);
  load_input<S>(a, t, in);
  __syncthreads();
  if (!a.pass.hu_matrix) {
    filter_rows(a, t, hu, in, filtered);
    __syncthreads();
  }
  make_t(a, t, hu, a.pass.hu_matrix ? in : filtered, between);
  __syncthreads();
  if (!a.pass.hd_matrix) {
    filter_columns(a, t, hd, between, b);
    __syncthreads();
  }
  store_tile<S>(a, t, hd, between, b);
}

}  // namespace gan_fast::cuda

#define GAN_FAST_FILTERED_LRELU(dtype, S)                                                                     \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kFilterThreads, 4) filtered_lrelu_##dtype(     \
      const __grid_constant__ gan_fast::cuda::FilteredLreluArguments a) {                                     \
    gan_fast::cuda::filtered_lrelu<S>(a);                                                                     \
  }

GAN_FAST_FILTERED_LRELU(f32, float)
GAN_FAST_FILTERED_LRELU(f64, double)
GAN_FAST_FILTERED_LRELU(bf16, gan_fast::cuda::BFloat16)
GAN_FAST_FILTERED_LRELU(f16, gan_fast::cuda::Half)
