// Convolution with 3x3 kernels at stride 1 on the CPU: Winograd's F(2x2, 3x3), 16 products where the sum has 36.
//
//   y = A^T [ sum over i of (G w_oi G^T) (B^T d_i B) ] A + bias     d: a 4x4 tile of the padded image, one every 2 pixels
//   dw = G^T [ sum over tiles of (A dy_o A^T) (B^T d_i B) ] G       products of numbers at the same place of 4x4 squares
//
// so that all of the work is 16 matrix products over channels, one for each place. The input's gradient is the first
// line with w turned round. In float32 as exact as the sum (errors of 1.7e-7 to 3.8e-7 where oneDNN has 1.1e-7 to 1.6e-6,
// docs/kernels.md): a product has few additions before it, and the sum over channels is nine times shorter. Results are
// not finite exactly where the sum's are not; NaN may stand where the sum has an infinity.
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
constexpr std::int64_t kSkew = 16;

constexpr std::int64_t panels(std::int64_t channels) { return (channels + kPanel - 1) / kPanel; }
constexpr std::int64_t strips(std::int64_t tiles) { return (tiles + kStrip - 1) / kStrip * kStrip; }

// Images [N, height, width, channels], dense in that order, cut into rows x columns tiles each.
template <class Pointer>
struct Images {
  Pointer data;
  std::int64_t height, width, channels;
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

// Kernels in the order of their use: [places, panels(out), in, kPanel]. Strides in elements; negative ones turn w round.
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
  const void* bias;  // [channels of y] or null
  std::int64_t block;  // tiles a scratch has room for
};

// Elements of scratch that `forward` wants.
constexpr std::int64_t forward_scratch(const Forward& job) {
  return kPlaces * (place_stride(panels(job.x.channels), job.block) + place_stride(1, job.block));
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

// Elements of scratch that `sums` wants.
constexpr std::int64_t sums_scratch(const Sums& job) {
  const std::int64_t in = (panels(job.x.channels) + job.in_groups - 1) / job.in_groups;
  const std::int64_t out = (panels(job.dy.channels) + job.out_groups - 1) / job.out_groups;
  return 4 * (place_stride(in, kChunk) + place_stride(out, kChunk));
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

// `wide`: float64, else float32. Ranges: output panels; tiles; units; input panels; (matrix, 16 columns).
GAN_FAST_CPU_KERNEL(winograd_weights, void, (bool wide, const winograd::Weights&, std::int64_t, std::int64_t))
GAN_FAST_CPU_KERNEL(winograd_forward, void, (bool wide, const winograd::Forward&, std::int64_t, std::int64_t, void*))
GAN_FAST_CPU_KERNEL(winograd_sums, void, (bool wide, const winograd::Sums&, std::int64_t, std::int64_t, void*))
GAN_FAST_CPU_KERNEL(
    winograd_weight_gradient, void, (bool wide, const winograd::WeightGradient&, std::int64_t, std::int64_t))
GAN_FAST_CPU_KERNEL(winograd_transpose, void, (bool wide, const winograd::Transposition&, std::int64_t, std::int64_t))

}  // namespace gan_fast
