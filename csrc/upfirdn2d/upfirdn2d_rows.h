// What the CPU kernel is given: images as rows of memory, and each axis's phases (upfirdn2d.h) with their taps.
//
// A row is width * inner numbers: inner is 1 for contiguous images, whose planes are N C, and C for channels_last ones, whose planes
// are N. A result row is made in tiles of columns: blend the input rows it depends on into one row in the cache (the vertical taps),
// then filter that row (the horizontal taps) straight into the result. A matrix of taps that is no product of a column and a row
// repeats the two steps for each of its rows, and adds.
#pragma once

namespace gan_fast {

struct UpfirdnAxis {
  long long phases, step;  // P, D
  const long long* first;  // [P]
  const int* count;        // [P]
  const int* tap;          // [P]: the m-th tap of phase r is the filter's tap[r] + m tap_step
  int tap_step;
  int width;         // the most taps a phase has
  int every;         // how many taps each phase has, or 0 where they differ
  const void* taps;  // [P, width] in the accumulation type; horizontally [rows of the matrix, P, width]
};

struct UpfirdnRows {
  const void* x;
  void* y;
  long long channels;                    // plane p is of sample p / channels
  long long x_sample, x_channel, x_row;  // strides of x in elements
  long long in_height, in_width, out_height, out_width, inner;
  UpfirdnAxis vertical, horizontal;
  bool separable;
  // A tile: result columns (a multiple of the horizontal phases), the input columns they need, and where these begin at column 0.
  long long tile, tile_in, lowest;
  const int* offset;  // [P, width]: where in the blended row, or in its parts, a horizontal tap reads for j = 0
  // Scratch memory, in numbers of the accumulation type: the blended row is at 0, then come its `step` interleaved parts, each `stream`
  // after the one before, one phase of the results, and one row of them.
  long long split_at, stream, phase_at, result_at, scratch;
};

}  // namespace gan_fast
