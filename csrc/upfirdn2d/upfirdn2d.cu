// upfirdn2d on the card: upfirdn2d.h says what it is.
//
// Kernels, <dtype> one of f32, f64, bf16, f16 and <mode> one of up2, down2, filter (both axes alike):
//   upfirdn2d_<mode>_<dtype>       4 x 4 taps in registers, contiguous images
//   upfirdn2d_last_<mode>_<dtype>  4 x 4 taps in registers, channels_last images
//   upfirdn2d_rows_<dtype>         a row of taps along both axes, any factors, contiguous images: two passes, between them shared memory
//   upfirdn2d_any_<dtype>          everything else: each thread one result, from memory
//
// What must move, and so the time to expect, is every pixel read once and every result written once: for N C H W = 8 64 64 64 in float
// 8.4 + 33.6 = 42 MB for up2, 8.4 + 2.1 = 10.5 MB for down2, 8.4 + 8.4 = 16.8 MB for the filter; half of it in 16 bits. At 3.35 TB/s
// these are 12.5, 3.1 and 5.0 us (launching costs 2 to 3), and 80 % of a copy is the aim, the rest being the halo: a block of filter
// results, 64 x 32, reads 67 x 35 pixels, 1.15 times its own, of which the second reading comes out of the second-level cache; up2 reads
// 34 x 18 for 64 x 32 results, down2 66 x 66 for 32 x 32 (1.06). Neither arithmetic nor shared memory is the limit on an H100 (132
// multiprocessors at 1.7 GHz: 29 T fused multiplications and 7.2 T reads of 4 bytes a second). In the time that a result's bytes take it
// does, in float, 68 multiplications and 17 reads for the filter, 43 and 11 for up2, 170 and 43 for down2, and needs 16 and 5.5 (a
// thread's column of 8 results reads 11 x 4 pixels), 4 and 1.5, 16 and 10; in 16 bits, where the bytes are half, the filter's 5.5 reads
// of 8.6 come nearest. So 4 x 4 taps are not taken apart, though [1, 3, 3, 1] squared could be, and no launch waits to look at them.
// A pixel that is read once is added to every result of its thread that it belongs to, and the sums stay in registers.
#include "common/cuda/device.h"
#include "upfirdn2d/upfirdn2d.h"
#include "upfirdn2d/upfirdn2d_arguments.h"

namespace gan_fast::cuda {

// Exact for dividends below 2^16.
struct Divisor {
  unsigned value, magic;

  __device__ __forceinline__ explicit Divisor(int d) : value(d), magic(0xffffffffu / (unsigned)d + 1) {}
  __device__ __forceinline__ int of(int n) const {
    return value == 1 ? n : (int)(((unsigned long long)(unsigned)n * magic) >> 32);
  }
};

template <int UP_, int DOWN_, int OX_, int OY_>
struct Mode {
  static constexpr int UP = UP_, DOWN = DOWN_;
  static constexpr int OX = OX_, OY = OY_;  // a thread's results
  // the pixels they depend on
  static constexpr int IX = ((OX - 1) * DOWN + kUpfirdnTaps - 1) / UP + 1, IY = ((OY - 1) * DOWN + kUpfirdnTaps - 1) / UP + 1;
};
using Up2 = Mode<2, 1, 2, 4>;
using Down2 = Mode<1, 2, 1, 4>;
using Filter = Mode<1, 1, 1, 8>;
using Up2Last = Mode<2, 1, 2, 4>;
using Down2Last = Mode<1, 2, 1, 1>;
using FilterLast = Mode<1, 1, 1, 2>;

// Results begin where a pixel meets the first tap: results before 0 are not written.
template <class M>
__device__ __forceinline__ int lead_of(const UpfirdnAxisArguments& axis) {
  return M::UP == 1 ? 0 : (int)floor_mod(axis.before, M::UP);
}

template <class T>
__device__ __forceinline__ void read_taps(const UpfirdnArguments& a, T (&h)[kUpfirdnTaps][kUpfirdnTaps]) {
  const T* f = static_cast<const T*>(a.f);
#pragma unroll
  for (int y = 0; y < kUpfirdnTaps; ++y) {
#pragma unroll
    for (int x = 0; x < kUpfirdnTaps; ++x) {
      const int v = a.flip ? y : kUpfirdnTaps - 1 - y, u = a.flip ? x : kUpfirdnTaps - 1 - x;
      h[y][x] = (T)a.gain * (a.matrix ? f[v * kUpfirdnTaps + u] : f[v] * f[u]);
    }
  }
}

// Adds pixel (row, column) of a thread's window, of V channels, to the results.
template <class M, int V, class T>
__device__ __forceinline__ void add_pixel(
    const T (&h)[kUpfirdnTaps][kUpfirdnTaps], const T (&in)[V], int row, int column, T (&sum)[M::OY][M::OX][V]) {
#pragma unroll
  for (int y = 0; y < M::OY; ++y) {
#pragma unroll
    for (int x = 0; x < M::OX; ++x) {
      const int v = row * M::UP - y * M::DOWN, u = column * M::UP - x * M::DOWN;
      if (v >= 0 && v < kUpfirdnTaps && u >= 0 && u < kUpfirdnTaps) {
#pragma unroll
        for (int j = 0; j < V; ++j) sum[y][x][j] = DeviceMath<T>::fma(h[v][u], in[j], sum[y][x][j]);
      }
    }
  }
}

// A block makes tiles of results of one or, where images are small, several planes. Shared memory: the pixels they depend on.
template <class S, class M>
__device__ __forceinline__ void tile(const UpfirdnArguments& a) {
  using T = typename Accumulate<S>::T;
  GAN_FAST_DYNAMIC_SHARED(T, pixels);
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  const int columns = M::OX << a.log_columns, rows = M::OY << a.log_rows;
  const int lead_x = lead_of<M>(h), lead_y = lead_of<M>(v);
  const int tiles_x = (h.out + lead_x + columns - 1) / columns, tiles_y = (v.out + lead_y + rows - 1) / rows;
  const int tile_x = blockIdx.x % tiles_x, tile_y = blockIdx.x / tiles_x % tiles_y;
  const long long plane = (long long)(blockIdx.x / tiles_x / tiles_y) * a.planes, all = a.samples * a.channels;
  const int out_x = tile_x * columns - lead_x, out_y = tile_y * rows - lead_y;
  const long long in_x = ((long long)out_x * M::DOWN - h.before) / M::UP, in_y = ((long long)out_y * M::DOWN - v.before) / M::UP;
  const int width = ((columns - 1) * M::DOWN + kUpfirdnTaps - 1) / M::UP + 1;
  const int height = ((rows - 1) * M::DOWN + kUpfirdnTaps - 1) / M::UP + 1;
  const int odd = (width + 1) / 2;  // for down2: where a row's odd columns begin, so that threads read one after the other

  const Divisor by_width(width), by_height(height);
  const int size = a.planes * height * width;
  constexpr int kBatch = 4;  // read before any is used, to have enough bytes in flight
#pragma unroll 1
  for (int first = threadIdx.x; first < size; first += kBatch * kUpfirdnThreads) {
    T value[kBatch];
    int place[kBatch];
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      const int i = first + b * kUpfirdnThreads;
      value[b] = T(0);
      place[b] = -1;
      if (i < size) {
        const int line = by_width.of(i), column = i - line * width, p = by_height.of(line);
        const long long y = in_y + (line - p * height), x = in_x + column;
        place[b] = M::DOWN == 2 ? line * width + (column & 1) * odd + column / 2 : i;
        if (y >= 0 && y < v.in && x >= 0 && x < h.in && plane + p < all) {
          const long long sample = (plane + p) / a.channels, channel = (plane + p) % a.channels;
          value[b] =
              widen(static_cast<const S*>(a.x)[sample * a.x_sample + channel * a.x_channel + y * a.x_row + x * a.x_column]);
        }
      }
    }
#pragma unroll
    for (int b = 0; b < kBatch; ++b) {
      if (place[b] >= 0) pixels[place[b]] = value[b];
    }
  }
  __syncthreads();

  T taps[kUpfirdnTaps][kUpfirdnTaps];
  read_taps(a, taps);
  const int at_x = threadIdx.x & ((1 << a.log_columns) - 1);
  const int at_y = threadIdx.x >> a.log_columns & ((1 << a.log_rows) - 1);
  const int p = threadIdx.x >> (a.log_columns + a.log_rows);
  if (p >= a.planes || plane + p >= all) return;
  const T* window = pixels + (p * height + at_y * (M::OY * M::DOWN / M::UP)) * width;
  const int left = at_x * (M::OX * M::DOWN / M::UP);
  T sum[M::OY][M::OX][1] = {};
#pragma unroll
  for (int row = 0; row < M::IY; ++row) {
#pragma unroll
    for (int column = 0; column < M::IX; ++column) {
      const int x = left + column;
      const T in[1] = {window[row * width + (M::DOWN == 2 ? (column & 1) * odd + x / 2 : x)]};
      add_pixel<M, 1>(taps, in, row, column, sum);
    }
  }
  const int x = out_x + at_x * M::OX;
  S* y = static_cast<S*>(a.y) + (plane + p) * v.out * h.out;
#pragma unroll
  for (int row = 0; row < M::OY; ++row) {
    const int o = out_y + at_y * M::OY + row;
    if (o < 0 || o >= v.out) continue;
    S* line = y + (long long)o * h.out;
    if (M::OX == 2 && a.packets) {
      if (x < h.out) store<S, 2>(line, x / 2, {sum[row][0][0], sum[row][M::OX - 1][0]});
    } else {
#pragma unroll
      for (int column = 0; column < M::OX; ++column) {
        if (x + column >= 0 && x + column < h.out) narrow(sum[row][column][0], line[x + column]);
      }
    }
  }
}

// A thread makes its results of a packet of channels; pixels that threads share come out of the first-level cache.
template <class S, class M>
__device__ __forceinline__ void last(const UpfirdnArguments& a) {
  using T = typename Accumulate<S>::T;
  constexpr int V = sizeof(S) == 8 ? 2 : 4;
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  const int lead_x = lead_of<M>(h), lead_y = lead_of<M>(v);
  const long long packets = a.channels / V, columns = (h.out + lead_x + M::OX - 1) / M::OX, rows = (v.out + lead_y + M::OY - 1) / M::OY;
  long long i = (long long)blockIdx.x * kUpfirdnThreads + threadIdx.x;
  if (i >= a.samples * rows * columns * packets) return;
  const long long packet = i % packets;
  i /= packets;
  const int out_x = (int)(i % columns) * M::OX - lead_x;
  i /= columns;
  const int out_y = (int)(i % rows) * M::OY - lead_y;
  const long long sample = i / rows;
  const long long in_x = ((long long)out_x * M::DOWN - h.before) / M::UP, in_y = ((long long)out_y * M::DOWN - v.before) / M::UP;
  const S* image = static_cast<const S*>(a.x) + sample * a.x_sample + packet * V;
  T taps[kUpfirdnTaps][kUpfirdnTaps];
  read_taps(a, taps);
  T sum[M::OY][M::OX][V] = {};
#pragma unroll
  for (int row = 0; row < M::IY; ++row) {
    const long long y = in_y + row;
    T in[M::IX][V];
#pragma unroll
    for (int column = 0; column < M::IX; ++column) {
      const long long x = in_x + column;
#pragma unroll
      for (int j = 0; j < V; ++j) in[column][j] = T(0);
      if (y >= 0 && y < v.in && x >= 0 && x < h.in) load<S, V>(image + y * a.x_row + x * a.x_column, 0, in[column]);
    }
#pragma unroll
    for (int column = 0; column < M::IX; ++column) add_pixel<M, V>(taps, in[column], row, column, sum);
  }
  S* result = static_cast<S*>(a.y) + sample * a.y_sample + packet * V;
#pragma unroll
  for (int row = 0; row < M::OY; ++row) {
#pragma unroll
    for (int column = 0; column < M::OX; ++column) {
      const int y = out_y + row, x = out_x + column;
      if (y >= 0 && y < v.out && x >= 0 && x < h.out) store<S, V>(result + y * a.y_row + x * a.y_column, 0, sum[row][column]);
    }
  }
}

// What results of a block read, counted from the block's first input: 32 bits are enough, and no result divides by more.
struct LocalAxis {
  long long origin;  // input that local input 0 is
  int rest, up, down, taps;

  __device__ __forceinline__ LocalAxis(const UpfirdnAxisArguments& a, int first) : up(a.up), down(a.down), taps(a.taps) {
    const long long at = (long long)first * a.down - a.before;
    rest = (int)floor_mod(at, a.up);
    origin = (at - rest) / a.up;
  }
  // the tap that result first + t meets first, and the local input it meets there
  __device__ __forceinline__ int tap(int t) const {
    const int m = (rest + t * down) % up;
    return m ? up - m : 0;
  }
  __device__ __forceinline__ int input(int t, int tap) const { return (rest + t * down + tap) / up; }
};

// A row of taps along both axes: a block filters the pixel rows that its results depend on into shared memory, then filters the columns.
template <class S>
__device__ __forceinline__ void two_passes(const UpfirdnArguments& a) {
  using T = typename Accumulate<S>::T;
  GAN_FAST_DYNAMIC_SHARED(T, shared);
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  const int n = h.taps;
  T* taps = shared;
  T* lines = shared + n;
  for (int k = threadIdx.x; k < n; k += kUpfirdnThreads) taps[k] = static_cast<const T*>(a.f)[a.flip ? k : n - 1 - k];
  const int tiles_x = (h.out + kUpfirdnColumns - 1) / kUpfirdnColumns, tiles_y = (v.out + a.rows - 1) / a.rows;
  const int out_x = blockIdx.x % tiles_x * kUpfirdnColumns, out_y = blockIdx.x / tiles_x % tiles_y * a.rows;
  const long long plane = blockIdx.x / tiles_x / tiles_y;
  const S* image = static_cast<const S*>(a.x) + plane / a.channels * a.x_sample + plane % a.channels * a.x_channel;
  const LocalAxis across(h, out_x), down(v, out_y);
  const int lane = threadIdx.x % kUpfirdnColumns, warp = threadIdx.x / kUpfirdnColumns;
  constexpr int kStep = kUpfirdnThreads / kUpfirdnColumns;
  const int height = ((a.rows - 1) * v.down + n - 1 + v.up - 1) / v.up + 1;
  __syncthreads();
  {
    const int first = across.tap(lane);
    const long long x = across.origin + across.input(lane, first);
#pragma unroll 1
    for (int line = warp; line < height; line += kStep) {
      const long long y = down.origin + line;
      T sum = 0;
      if (y >= 0 && y < v.in) {
        const S* pixel = image + y * a.x_row + x * a.x_column;
        long long column = x;
#pragma unroll 4
        for (int k = first; k < n; k += h.up, ++column, pixel += a.x_column) {
          if (column >= 0 && column < h.in) sum = DeviceMath<T>::fma(taps[k], widen(*pixel), sum);
        }
      }
      lines[line * kUpfirdnColumns + lane] = sum * (T)a.gain;
    }
  }
  __syncthreads();
  if (out_x + lane >= h.out) return;
  S* y = static_cast<S*>(a.y) + plane * v.out * h.out + out_x + lane;
#pragma unroll 1
  for (int t = warp; t < a.rows && out_y + t < v.out; t += kStep) {
    const int first = down.tap(t);
    const T* line = lines + down.input(t, first) * kUpfirdnColumns + lane;
    T sum = 0;
#pragma unroll 4
    for (int k = first; k < n; k += v.up, line += kUpfirdnColumns) sum = DeviceMath<T>::fma(taps[k], *line, sum);
    narrow(sum, y[(long long)(out_y + t) * h.out]);
  }
}

template <class S>
__device__ __forceinline__ void any(const UpfirdnArguments& a) {
  using T = typename Accumulate<S>::T;
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  long long i = (long long)blockIdx.x * kUpfirdnThreads + threadIdx.x;
  if (i >= a.samples * a.channels * v.out * h.out) return;
  long long channel = 0;
  if (a.channels_last) {
    channel = i % a.channels;
    i /= a.channels;
  }
  const int x = (int)(i % h.out);
  i /= h.out;
  const int y = (int)(i % v.out);
  i /= v.out;
  if (!a.channels_last) {
    channel = i % a.channels;
    i /= a.channels;
  }
  const Phase across(x, h.up, h.down, h.before, h.taps), down(y, v.up, v.down, v.before, v.taps);
  const T* f = static_cast<const T*>(a.f);
  const S* image = static_cast<const S*>(a.x) + i * a.x_sample + channel * a.x_channel;
  T sum = 0;
#pragma unroll 1
  for (int m = 0; m < down.count; ++m) {
    const long long row = down.first + m;
    if (row < 0 || row >= v.in) continue;
    const int k = down.tap + m * v.up, from = a.flip ? k : v.taps - 1 - k;
    T line = 0;
#pragma unroll 2
    for (int n = 0; n < across.count; ++n) {
      const long long column = across.first + n;
      if (column < 0 || column >= h.in) continue;
      const int l = across.tap + n * h.up, at = a.flip ? l : h.taps - 1 - l;
      const T tap = f == nullptr ? T(1) : f[a.matrix ? from * h.taps + at : at];
      line = DeviceMath<T>::fma(tap, widen(image[row * a.x_row + column * a.x_column]), line);
    }
    sum = DeviceMath<T>::fma(f == nullptr || a.matrix ? T(1) : f[from], line, sum);
  }
  narrow(sum * (T)a.gain, static_cast<S*>(a.y)[i * a.y_sample + channel * a.y_channel + y * a.y_row + x * a.y_column]);
}

}  // namespace gan_fast::cuda

#define GAN_FAST_UPFIRDN2D(name, function)                                                                                         \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kUpfirdnThreads, 2)                                                \
      name(const __grid_constant__ gan_fast::cuda::UpfirdnArguments a) {                                                           \
    function(a);                                                                                                                   \
  }
#define GAN_FAST_UPFIRDN2D_ALL(dtype, S)                                                                                           \
  GAN_FAST_UPFIRDN2D(upfirdn2d_up2_##dtype, (gan_fast::cuda::tile<S, gan_fast::cuda::Up2>))                                        \
  GAN_FAST_UPFIRDN2D(upfirdn2d_down2_##dtype, (gan_fast::cuda::tile<S, gan_fast::cuda::Down2>))                                    \
  GAN_FAST_UPFIRDN2D(upfirdn2d_filter_##dtype, (gan_fast::cuda::tile<S, gan_fast::cuda::Filter>))                                  \
  GAN_FAST_UPFIRDN2D(upfirdn2d_last_up2_##dtype, (gan_fast::cuda::last<S, gan_fast::cuda::Up2Last>))                               \
  GAN_FAST_UPFIRDN2D(upfirdn2d_last_down2_##dtype, (gan_fast::cuda::last<S, gan_fast::cuda::Down2Last>))                           \
  GAN_FAST_UPFIRDN2D(upfirdn2d_last_filter_##dtype, (gan_fast::cuda::last<S, gan_fast::cuda::FilterLast>))                         \
  GAN_FAST_UPFIRDN2D(upfirdn2d_rows_##dtype, (gan_fast::cuda::two_passes<S>))                                                      \
  GAN_FAST_UPFIRDN2D(upfirdn2d_any_##dtype, (gan_fast::cuda::any<S>))

GAN_FAST_UPFIRDN2D_ALL(f32, float)
GAN_FAST_UPFIRDN2D_ALL(f64, double)
GAN_FAST_UPFIRDN2D_ALL(bf16, gan_fast::cuda::BFloat16)
GAN_FAST_UPFIRDN2D_ALL(f16, gan_fast::cuda::Half)
