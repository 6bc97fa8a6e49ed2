// What the filtered_lrelu kernel is given. Read by host and device, so nothing but plain types.
//
// A block makes a tile of results of one plane, in shared memory of the accumulation type:
//
//   in [in_h][in_w]     the input it depends on                     along x     a [in_h][t_w]     where fu is not a matrix
//   t [t_h][t_w]        the pixels between the filters              along y     b [tile_h][t_w]   where fd is not a matrix
//
// Arrays that are not needed at the same time share a place.
#pragma once

#include "filtered_lrelu/filtered_lrelu.h"

namespace gan_fast::cuda {

constexpr int kFilterThreads = 256;

struct FilteredLreluArguments {
  FilterPass pass;
  long long tiles_x, tiles_y;
  int tile_w, tile_h;  // results; tile_h down is a multiple of 4, so a byte of the mask belongs to one block
  int in_w, in_h, t_w, t_h;
  int hu_count, hd_count;
  int hd_at, in_at, a_at, t_at, b_at;  // elements; hu is at 0
  int up_shift, phase_shift;  // log2 of up and of phases, or -1
};

}  // namespace gan_fast::cuda
