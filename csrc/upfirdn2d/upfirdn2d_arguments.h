// What the upfirdn2d kernels are given. Read by host and device, so nothing but plain types.
#pragma once

namespace gan_fast::cuda {

constexpr int kUpfirdnThreads = 256;
constexpr int kUpfirdnTaps = 4;      // along each axis, of the kernels with their taps in registers
constexpr int kUpfirdnColumns = 32;  // of a block's results in the kernel for rows of taps

struct UpfirdnAxisArguments {
  int up, down, taps;
  int in, out;  // pixels
  long long before;
};

// floor(n / by) = n magic / 2^shift for n below 2^31: two instructions instead of twenty.
struct UpfirdnDivisor {
  unsigned by, magic;
  int shift;
};

struct UpfirdnArguments {
  const void* x;
  void* y;
  const void* f;  // [fh, fw], or [n] where `matrix` is 0, of the accumulation type; null: one tap of 1
  int matrix, flip;
  double gain;
  UpfirdnAxisArguments horizontal, vertical;
  long long samples, channels;
  // strides in elements; the other order of images in memory has other strides and nothing else
  long long x_sample, x_channel, x_row, x_column, y_sample, y_channel, y_row, y_column;
  int channels_last;  // threads next to each other take channels, not columns
  // The kernels with their taps in registers: a block has 2^log_packets by 2^log_columns by 2^log_rows threads for each of `images`
  // images (planes, or samples of channels_last images); tiles of blocks make an image, strips of packets all its channels.
  int log_packets, log_columns, log_rows, images;
  UpfirdnDivisor strips, tiles_x, tiles_y, by_channels;
  int pairs;  // two results of a row may be moved in one access
  int rows;   // of a block's results in the kernel for rows of taps
};

}  // namespace gan_fast::cuda
