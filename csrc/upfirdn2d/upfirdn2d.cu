// upfirdn2d on the card: upfirdn2d.h says what it is.
//
// Kernels, <dtype> one of f32, f64, bf16, f16 and <mode> one of up2, down2, filter (both axes alike):
//   upfirdn2d_<mode>_<dtype>       4 x 4 taps in registers, contiguous images
//   upfirdn2d_last_<mode>_<dtype>  4 x 4 taps in registers, channels_last images
//   upfirdn2d_rows_<dtype>         a row of taps along both axes, any factors, contiguous images: two passes, between them shared memory
//   upfirdn2d_any_<dtype>          everything else: each thread one result, from memory
//
// What must move is every pixel read once and every result written once, and 80 % of a copy of as many bytes is the aim. Kernels with
// four 64-bit divisions a thread, one for every pixel they put into shared memory, and few results a thread, missed it on an H100
// (N C H W = 16 128 128 128, [1, 3, 3, 1] squared, against a copy at 2.96 TB/s):
//
//                       up2             down2           filter
//   f32 contiguous       554 us for 228  215 us for 60   310 us for 94
//   bf16 channels_last   263 us for 116  121 us for 32   251 us for 48
//
// 132 multiprocessors at 1.7 GHz run 28.7 T lanes' instructions a second. Those kernels' instructions alone, counted, took three quarters
// of their time in contiguous memory and half of it in channels_last; at 80 % of a copy a result may cost, in the order of the table, 61,
// 257 and 101 of them, and 31, 137 and 51. Counted in the machine code for sm_90 on the way that results inside an image take, from the
// first instruction to the last, one costs (no card has timed these kernels)
//
//                  up2              down2            filter
//   contiguous     17 f32, 19 bf16  55 f32, 72 bf16  33 f32, 41 bf16
//   channels_last  8 f32, 10 bf16   33 f32, 44 bf16  25 f32, 30 bf16
//
// of which 4, 16 and 16 are the products, 4 x 4 taps not taken apart, though [1, 3, 3, 1] squared could be: then no launch waits to look
// at them. So few they are because a thread makes 4 to 16 results of a column or two, walking down the rows: a pixel is read and widened
// once, straight from the first-level cache, and added to every result of its thread that it belongs to; addresses advance by a row; and
// rows, in channels_last memory columns too, are not checked where the window lies inside the image. Rows are asked for some rows ahead
// of their use, since a compiler may not read ahead of a write, and stay in registers. Threads that lie beside each other read pixels
// beside each other, and a block is a patch, whose halo the first-level cache serves: of 64 x 64 filter results 1.05 times the rows are read from the second level, of 16 x 8 in
// channels_last memory (a line of 128 bytes of channels a pixel) 1.63 times the pixels.
#include "common/cuda/device.h"
#include "upfirdn2d/upfirdn2d.h"
#include "upfirdn2d/upfirdn2d_arguments.h"

namespace gan_fast::cuda {

template <int UP_, int DOWN_, int OX_, int OY_, int AHEAD_>
struct Mode {
  static constexpr int UP = UP_, DOWN = DOWN_;
  static constexpr int OX = OX_, OY = OY_;  // a thread's results
  // the pixels they depend on
  static constexpr int IX = ((OX - 1) * DOWN + kUpfirdnTaps - 1) / UP + 1, IY = ((OY - 1) * DOWN + kUpfirdnTaps - 1) / UP + 1;
  static constexpr int AHEAD = AHEAD_;  // rows of pixels that are on their way while one is used
};
using Up2 = Mode<2, 1, 2, 8, 3>;
using Down2 = Mode<1, 2, 1, 8, 4>;
using Filter = Mode<1, 1, 2, 8, 3>;
using Up2Last = Mode<2, 1, 2, 8, 2>;
using Down2Last = Mode<1, 2, 1, 4, 3>;
using FilterLast = Mode<1, 1, 2, 4, 2>;

template <class T>
struct alignas(16) Taps {
  T h[kUpfirdnTaps][kUpfirdnTaps];
};

// The taps times the gain, in the order in which pixels meet them: made once by a block, then in every thread's registers.
template <class T>
__device__ __forceinline__ Taps<T> read_taps(const UpfirdnArguments& a, Taps<T>& shared) {
  if (threadIdx.x < kUpfirdnTaps * kUpfirdnTaps) {
    const T* f = static_cast<const T*>(a.f);
    const unsigned k = a.flip ? threadIdx.x : kUpfirdnTaps * kUpfirdnTaps - 1 - threadIdx.x;
    const unsigned y = k / kUpfirdnTaps, x = k % kUpfirdnTaps;
    shared.h[threadIdx.x / kUpfirdnTaps][threadIdx.x % kUpfirdnTaps] = (T)a.gain * (a.matrix ? f[k] : f[y] * f[x]);
  }
  __syncthreads();
  return shared;
}

// Divides n, and leaves the rest in it.
__device__ __forceinline__ unsigned divide(unsigned& n, const UpfirdnDivisor& d) {
  const unsigned quotient = (unsigned)((unsigned long long)n * d.magic >> d.shift);
  n -= quotient * d.by;
  return quotient;
}

// Adds pixel (row, column) of a thread's window, of V channels, to the results; the first pixel of a result begins its sum.
template <class M, int V, class T>
__device__ __forceinline__ void add_pixel(const Taps<T>& taps, const T (&in)[V], int row, int column, T (&sum)[M::OY][M::OX][V]) {
#pragma unroll
  for (int y = 0; y < M::OY; ++y) {
#pragma unroll
    for (int x = 0; x < M::OX; ++x) {
      const int v = row * M::UP - y * M::DOWN, u = column * M::UP - x * M::DOWN;
      if (v >= 0 && v < kUpfirdnTaps && u >= 0 && u < kUpfirdnTaps) {
#pragma unroll
        for (int j = 0; j < V; ++j) {
          const bool first = v < M::UP && u < M::UP;
          sum[y][x][j] = first ? taps.h[v][u] * in[j] : DeviceMath<T>::fma(taps.h[v][u], in[j], sum[y][x][j]);
        }
      }
    }
  }
}

// A thread's results and the window of pixels they depend on. All numbers fit in 32 bits: the host gives other images to `any`.
struct Patch {
  bool some;  // of the results are to be written
  unsigned image, packet;
  int out_x, out_y, in_x, in_y;
};

// Threads next to each other take packets, then columns, then rows, then images; blocks in the same order.
template <class M>
__device__ __forceinline__ Patch patch_of(const UpfirdnArguments& a, unsigned images, unsigned packets) {
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  unsigned rest = blockIdx.x, thread = threadIdx.x;
  Patch p;
  p.packet = thread & ((1u << a.log_packets) - 1);
  thread >>= a.log_packets;
  const unsigned at_x = thread & ((1u << a.log_columns) - 1);
  thread >>= a.log_columns;
  const unsigned at_y = thread & ((1u << a.log_rows) - 1);
  thread >>= a.log_rows;
  if (packets > 1) {
    const unsigned tile = divide(rest, a.strips);
    p.packet += rest << a.log_packets;
    rest = tile;
  }
  unsigned tile_y = divide(rest, a.tiles_x);
  const unsigned tile_x = rest;
  p.image = divide(tile_y, a.tiles_y) * a.images + thread;
  // Results begin where a pixel meets the first tap: results before 0 are not written.
  const int before_x = (int)h.before, before_y = (int)v.before;
  p.out_x = (int)((tile_x << a.log_columns) + at_x) * M::OX - (M::UP == 1 ? 0 : before_x & 1);
  p.out_y = (int)((tile_y << a.log_rows) + at_y) * M::OY - (M::UP == 1 ? 0 : before_y & 1);
  p.in_x = (p.out_x * M::DOWN - before_x) / M::UP;
  p.in_y = (p.out_y * M::DOWN - before_y) / M::UP;
  p.some = thread < (unsigned)a.images && p.image < images && p.packet < packets && p.out_x < h.out && p.out_y < v.out;
  return p;
}

__device__ __forceinline__ bool within(int first, int count, int size) { return first >= 0 && first + count <= size; }

// Makes a thread's results row by row. x and y are where pixel (in_y, in_x) and result (out_y, out_x) are, or would be. kRows and
// kColumns: the rows, the columns, of pixels and of results are all there. Two results of a row are then moved in one access where
// they are neighbours in memory (kPairs).
template <class S, class M, int V, bool kRows, bool kColumns, bool kPairs>
__device__ __forceinline__ void walk(
    const UpfirdnArguments& a, const Taps<typename Accumulate<S>::T>& taps, const Patch& p, const S* x, S* y) {
  using T = typename Accumulate<S>::T;
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  const long long x_column = V == 1 ? 1 : a.x_column, y_column = V == 1 ? 1 : a.y_column;
  bool pixel_there[M::IX], result_there[M::OX];
#pragma unroll
  for (int c = 0; c < M::IX; ++c) pixel_there[c] = kColumns || (unsigned)(p.in_x + c) < (unsigned)h.in;
#pragma unroll
  for (int c = 0; c < M::OX; ++c) {
    // a thread's only result of a row is there where any is
    result_there[c] = kColumns || kPairs || (M::OX == 1 && M::UP == 1) || (unsigned)(p.out_x + c) < (unsigned)h.out;
  }
  constexpr int kAhead = !kRows ? 0 : sizeof(S) * V <= 8 ? M::AHEAD : 1;  // what registers hold
  Raw<S, V> pixels[M::IY][M::IX];
  T sum[M::OY][M::OX][V];
#pragma unroll
  for (int turn = 0; turn < M::IY + kAhead; ++turn) {
    if (turn < M::IY) {
      const bool there = kRows || (unsigned)(p.in_y + turn) < (unsigned)v.in;
#pragma unroll
      for (int c = 0; c < M::IX; ++c) {
        pixels[turn][c] = Raw<S, V>{};
        if (there && pixel_there[c]) pixels[turn][c] = *reinterpret_cast<const Raw<S, V>*>(x + c * x_column);
      }
      x += a.x_row;
    }
    const int row = turn - kAhead;
    if (row < 0) continue;
#pragma unroll
    for (int c = 0; c < M::IX; ++c) {
      T in[V];
      pixels[row][c].widen_to(in);
      add_pixel<M, V>(taps, in, row, c, sum);
    }
#pragma unroll
    for (int done = 0; done < M::OY; ++done) {
      if ((done * M::DOWN + kUpfirdnTaps - 1) / M::UP != row) continue;  // more pixels to come, or already written
      const bool there = kRows || (unsigned)(p.out_y + done) < (unsigned)v.out;
      if constexpr (kPairs) {
        if (there) store<S, 2>(y, 0, {sum[done][0][0], sum[done][1][0]});
      } else {
#pragma unroll
        for (int c = 0; c < M::OX; ++c) {
          if (there && result_there[c]) store<S, V>(y + c * y_column, 0, sum[done][c]);
        }
      }
      y += a.y_row;
    }
  }
}

// Contiguous images, a result of one plane after the other.
template <class S, class M>
__device__ __forceinline__ void tile(const UpfirdnArguments& a, Taps<typename Accumulate<S>::T>& shared) {
  const auto taps = read_taps(a, shared);
  const Patch p = patch_of<M>(a, (unsigned)(a.samples * a.channels), 1);
  unsigned channel = p.image;
  const unsigned sample = divide(channel, a.by_channels);
  const S* x = static_cast<const S*>(a.x) + sample * a.x_sample + (long long)channel * (int)a.x_channel +
      (long long)p.in_y * (int)a.x_row + p.in_x;
  S* y = static_cast<S*>(a.y) + (long long)p.image * (int)a.y_channel + (long long)p.out_y * (int)a.y_row + p.out_x;
  const bool whole = (M::OX == 1 || a.pairs) && within(p.in_y, M::IY, a.vertical.in) && within(p.out_y, M::OY, a.vertical.out);
  // Lanes of a warp go the same way, for together they take the time of both.
  if (__all_sync(kFullMask, whole || !p.some)) {
    if (p.some) walk<S, M, 1, true, false, M::OX == 2>(a, taps, p, x, y);
  } else if (p.some) {
    walk<S, M, 1, false, false, false>(a, taps, p, x, y);
  }
}

// channels_last images, a packet of channels a thread; pixels that threads share come out of the first-level cache.
template <class S, class M>
__device__ __forceinline__ void last(const UpfirdnArguments& a, Taps<typename Accumulate<S>::T>& shared) {
  constexpr int V = sizeof(S) == 8 ? 2 : 4;
  const auto taps = read_taps(a, shared);
  const UpfirdnAxisArguments &h = a.horizontal, &v = a.vertical;
  const Patch p = patch_of<M>(a, (unsigned)a.samples, (unsigned)a.channels / V);
  const S* x = static_cast<const S*>(a.x) + p.image * a.x_sample + p.packet * V + (long long)p.in_y * (int)a.x_row +
      (long long)p.in_x * (int)a.x_column;
  S* y = static_cast<S*>(a.y) + p.image * a.y_sample + p.packet * V + (long long)p.out_y * (int)a.y_row +
      (long long)p.out_x * (int)a.y_column;
  const bool whole = within(p.in_y, M::IY, v.in) && within(p.out_y, M::OY, v.out) && within(p.in_x, M::IX, h.in) &&
      within(p.out_x, M::OX, h.out);
  if (__all_sync(kFullMask, whole || !p.some)) {
    if (p.some) walk<S, M, V, true, true, false>(a, taps, p, x, y);
  } else if (p.some) {
    walk<S, M, V, false, false, false>(a, taps, p, x, y);
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

#define GAN_FAST_UPFIRDN2D_KERNEL(name)                                                                                 \
  extern "C" __global__ void __launch_bounds__(gan_fast::cuda::kUpfirdnThreads, 2)                                      \
      name(const __grid_constant__ gan_fast::cuda::UpfirdnArguments a)
#define GAN_FAST_UPFIRDN2D_MODE(name, function, mode, S)                                                                \
  GAN_FAST_UPFIRDN2D_KERNEL(name) {                                                                                     \
    __shared__ gan_fast::cuda::Taps<typename gan_fast::cuda::Accumulate<S>::T> taps;                                    \
    gan_fast::cuda::function<S, gan_fast::cuda::mode>(a, taps);                                                         \
  }
#define GAN_FAST_UPFIRDN2D_ALL(dtype, S)                                                                                \
  GAN_FAST_UPFIRDN2D_MODE(upfirdn2d_up2_##dtype, tile, Up2, S)                                                          \
  GAN_FAST_UPFIRDN2D_MODE(upfirdn2d_down2_##dtype, tile, Down2, S)                                                      \
  GAN_FAST_UPFIRDN2D_MODE(upfirdn2d_filter_##dtype, tile, Filter, S)                                                    \
  GAN_FAST_UPFIRDN2D_MODE(upfirdn2d_last_up2_##dtype, last, Up2Last, S)                                                 \
  GAN_FAST_UPFIRDN2D_MODE(upfirdn2d_last_down2_##dtype, last, Down2Last, S)                                             \
  GAN_FAST_UPFIRDN2D_MODE(upfirdn2d_last_filter_##dtype, last, FilterLast, S)                                           \
  GAN_FAST_UPFIRDN2D_KERNEL(upfirdn2d_rows_##dtype) { gan_fast::cuda::two_passes<S>(a); }                               \
  GAN_FAST_UPFIRDN2D_KERNEL(upfirdn2d_any_##dtype) { gan_fast::cuda::any<S>(a); }

GAN_FAST_UPFIRDN2D_ALL(f32, float)
GAN_FAST_UPFIRDN2D_ALL(f64, double)
GAN_FAST_UPFIRDN2D_ALL(bf16, gan_fast::cuda::BFloat16)
GAN_FAST_UPFIRDN2D_ALL(f16, gan_fast::cuda::Half)
