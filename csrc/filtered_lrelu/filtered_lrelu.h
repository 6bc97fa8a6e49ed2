// Leaky ReLU of an image at a higher resolution. Along each axis, with h the filters as they are read,
//
//   t[i] = sum_k hu[k] u[i + k - start],  u[m up] = x[m] + b, 0 elsewhere     0 <= i < width
//   z[i] = clamp(pos max(t[i], 0) + neg min(t[i], 0), -limit, limit)
//   y[j] = sum_k hd[k] z[j down + k]                                           0 <= j < out
//
// where pos and neg hold the gains. What z's slope was is 2 bits: the mask, written by the forward pass. Every derivative
// is the same pass with z[i] = slope[i + offset] t[i] read from the mask. The adjoint of a pass exchanges the filters, read
// the other way round, and the factors, has start' = hu taps + hd taps - 2 - start and begins start - (hu taps - 1)
// further on in t:
//
//   t'[i] = sum_k hd[hd taps - 1 - k] u'[i + k - start'],  u'[j down] = dy[j]     i counts from offset' = start - (hu taps - 1)
//   dx[m] = sum_k hu[hu taps - 1 - k] z'[m up + k]
//
// t's columns are kept in phases: column i = phases m + p is element m of phase p, with phases = lcm(up, down). Both filters
// then read consecutive elements. The mask is uint8 [N, C, rows / 4, phases columns]: 4 rows a byte, row i in bits 2 (i mod 4).
#pragma once

#include "common/math.h"

namespace gan_fast {

enum class MaskUse : int { None = 0, Write = 1, Read = 2 };

// What z was: pos, neg or clamped.
constexpr int kPositive = 0, kNegative = 1, kClamped = 2;

struct FilterAxis {
  long long in, out;
  long long start;
  long long width;   // of t: (out - 1) down + hd taps
  long long offset;  // t[i] belongs to mask entry i + offset
  long long mask;    // entries of the mask along this axis
  int up_taps, down_taps;
};

// One pass. The filters are of the accumulation type, one row of taps for both axes or rows of them.
struct FilterPass {
  const void* x;
  void* y;
  const void* bias;  // [channels] of the accumulation type, or null
  unsigned char* mask;
  const void* hu;  // or null: the identity
  const void* hd;
  FilterAxis horizontal, vertical;
  long long samples, channels;
  double pos, neg, limit;  // limit is infinite where nothing is clamped
  MaskUse use;
  int up, down, phases;
  int hu_matrix, hd_matrix;  // rows of taps instead of one row for both axes
  int reversed;              // the filters are given in the other order than they are read
  int channels_last;
};

GAN_FAST_HD long long floor_divide(long long a, long long b) {
  const long long q = a / b;
  return q * b > a ? q - 1 : q;
}
GAN_FAST_HD long long ceil_divide(long long a, long long b) { return -floor_divide(-a, b); }
GAN_FAST_HD long long at_most(long long a, long long b) { return a < b ? a : b; }
GAN_FAST_HD long long at_least(long long a, long long b) { return a > b ? a : b; }

// Rows of bytes, and entries of one phase, of the mask.
GAN_FAST_HD long long mask_rows(const FilterPass& p) { return ceil_divide(p.vertical.mask, 4); }
GAN_FAST_HD long long mask_columns(const FilterPass& p) { return ceil_divide(p.horizontal.mask, p.phases); }

// Channels that the CPU takes at a time: in channels_last one vector of them or all, else a plane.
GAN_FAST_HD long long channel_block(const FilterPass& p) {
  return !p.channels_last ? 1 : p.channels <= 32 ? at_least(p.channels, 1) : 16;
}

}  // namespace gan_fast
