// Convolution with 3x3 kernels at stride 1 on the CPU: Winograd's F(2x2, 3x3), 16 products where the sum has 36.
//
//   y = A^T [ sum over i of (G w_oi G^T) (B^T d_i B) ] A + bias     d: a 4x4 tile of the padded image, one every 2 pixels
//   dw = G^T [ sum over tiles of (A dy_o A^T) (B^T d_i B) ] G       products of numbers at the same place of 4x4 squares
//
// so that all of the work is 16 matrix products over channels, one for each place. The input's gradient is the first
// line with w turned round. In float32 as exact as the sum (errors of 1.7e-7 to 3.8e-7 where oneDNN has 1.1e-7 to 1.6e-6,
// docs/kernels.md): a product has few additions before it, and the sum over channels is nine times shorter. Results are
// not finite exactly where the sum's are not, or where four inputs added are not; NaN may stand where the sum has an
// infinity.
//
// In bfloat16 the 4x4 squares are rounded to it, for products that add pairs: channels side by side in the first line,
// neighbouring tiles in the second. So style and demodulation are applied in float32 as tiles are read and written.
//
// Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks", section 4.1.
#pragma once

#include <cstdint>

#include "common/cpu/isa.h"

namespace gan_fast::winograd {

constexpr std::int64_t kPlaces = 16;
// Channels lie side by side in panels, the same for every instruction set; the last one is filled up with zeros.
constexpr std::int64_t kPanel = 32;
// Tiles are multiplied in strips, so scratch memory has room for a multiple of this.
constexpr std::int64_t kStrip = 12;
// Added to a power of two, so that the 16 places of a tile do not share the cache's sets.
constexpr std::int64_t kSkew = 32;

// What images are stored as. Squares are `cell_size` bytes a number, as images are, sums and parameters `sum_size`.
enum class Storage { Float, Double, BFloat16 };  // as storage_code of `common/host.h` has them
constexpr std::int64_t cell_size(Storage s) { return s == Storage::Double ? 8 : s == Storage::Float ? 4 : 2; }
constexpr std::int64_t sum_size(Storage s) { return s == Storage::Double ? 8 : 4; }

constexpr std::int64_t panels(std::int64_t channels) { return (channels + kPanel - 1) / kPanel; }
constexpr std::int64_t strips(std::int64_t tiles) { return (tiles + kStrip - 1) / kStrip * kStrip; }

// Images [N, height, width, channels], dense in that order, cut into rows x columns tiles each; as they are read or
// written, they are multiplied by `scale` [N, channels], where that is not null.
template <class Pointer>
struct Images {
  Pointer data;
  std::int64_t height, width, channels;
  const void* scale = nullptr;
};

// clamp(gain act(y + noise + bias)): act 0 linear, 1 relu, 2 leaky relu. clamp < 0: none.
struct Epilogue {
  const void* noise = nullptr;  // [N or 1, height, width]; elements between images
  std::int64_t noise_stride = 0;
  const void* bias = nullptr;  // [channels]
  int act = 0;
  double alpha = 0, gain = 1, clamp = -1;
};

// Where the tiles of an input and of an output lie: tile (r, c) of an output is its pixels 2r, 2r + 1 by 2c, 2c + 1.
struct Tiling {
  std::int64_t rows, columns, padding_h, padding_w;
};

// Some panels.
struct Range {
  std::int64_t begin, end;
  std::int64_t size() const { return end - begin; }
};

// The k-th of `parts` parts of `count` panels.
constexpr Range part(std::int64_t count, std::int64_t parts, std::int64_t k) {
  return {count * k / parts, count * (k + 1) / parts};
}

// Scratch for `tiles` tiles: [places, panels, tiles, kPanel], places this many elements apart.
constexpr std::int64_t place_stride(std::int64_t panels, std::int64_t tiles) { return panels * tiles * kPanel + kSkew; }

// Kernels in the order of their use: [places, panels(out), in, kPanel], in bfloat16 [.., pairs of in, kPanel, 2]; w is of
// the type of sums. Strides in elements; negative ones turn w round.
struct Weights {
  const void* w;
  std::int64_t out, in, out_stride, in_stride, row_stride, column_stride;
  void* u;
};

struct Forward {
  Images<const void*> x;
  Images<void*> y;
  Tiling tiling;
  const void* u;
  Epilogue epilogue;
  std::int64_t step, block;  // tiles that are done at a time, and that scratch has room for: strips(step)
  // Where given, sums over the pixels of a row of tiles of `other` times y without its scale: [N x rows, channels].
  const void* other = nullptr;
  void* row_sums = nullptr;
};

// Bytes of scratch that `forward` wants.
constexpr std::int64_t forward_scratch(Storage s, const Forward& job) {
  return kPlaces *
      (place_stride(panels(job.x.channels), job.block) * cell_size(s) + place_stride(1, job.block) * sum_size(s));
}

// Tiles that `sums` transforms at a time and sums by themselves, whatever the number of threads.
constexpr std::int64_t kChunk = 128;

// sums [places, panels(in), panels(out), kPanel (in), kPanel (out)] += (A dy A^T) (B^T d B) over tiles. A unit of work is
// one row of places, one part of the input's panels and one of the output's; it has its sums to itself.
struct Sums {
  Images<const void*> x, dy;
  Tiling tiling;
  std::int64_t tiles, in_groups, out_groups;
  void* sums;
};

constexpr std::int64_t units(const Sums& job) { return 4 * job.in_groups * job.out_groups; }

// Bytes of scratch that `sums` wants.
constexpr std::int64_t sums_scratch(Storage s, const Sums& job) {
  const std::int64_t in = (panels(job.x.channels) + job.in_groups - 1) / job.in_groups;
  const std::int64_t out = (panels(job.dy.channels) + job.out_groups - 1) / job.out_groups;
  return 4 * (place_stride(in, kChunk) + place_stride(out, kChunk)) * cell_size(s);
}

struct WeightGradient {
  const void* sums;
  std::int64_t in, out;
  void* dw;  // any order: strides in elements
  std::int64_t out_stride, in_stride, row_stride, column_stride;
};

// Matrices [rows, columns], one after the other.
struct Transposition {
  const void* from;
  void* to;
  std::int64_t rows, columns;
};

}  // namespace gan_fast::winograd

namespace gan_fast {

// Ranges: output panels; tiles; units; input panels; (matrix, 16 columns).
GAN_FAST_CPU_KERNEL(winograd_weights, void, (winograd::Storage, const winograd::Weights&, std::int64_t, std::int64_t))
GAN_FAST_CPU_KERNEL(winograd_forward, void, (winograd::Storage, const winograd::Forward&, std::int64_t, std::int64_t, void*))
GAN_FAST_CPU_KERNEL(winograd_sums, void, (winograd::Storage, const winograd::Sums&, std::int64_t, std::int64_t, void*))
GAN_FAST_CPU_KERNEL(
    winograd_weight_gradient, void, (winograd::Storage, const winograd::WeightGradient&, std::int64_t, std::int64_t))
GAN_FAST_CPU_KERNEL(winograd_transpose, void, (winograd::Storage, const winograd::Transposition&, std::int64_t, std::int64_t))

}  // namespace gan_fast
