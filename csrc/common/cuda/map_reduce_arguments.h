// What the map-reduce kernels are given. Read by host and device, so nothing but plain types.
//
// Every loss is an elementwise term over a list of segments (common/segment.h), summed or written out. One launch covers the list:
//   a unit of work is a block, or in a launch of one block a warp; units [0, work[0].unit_end) share segment 0, the next ones up to
//   work[1].unit_end segment 1, and so on. Which unit sums what depends on nothing but the sizes and the card, so results repeat.
#pragma once

#include "common/segment.h"

namespace gan_fast::cuda {

constexpr int kMaxSegments = 20;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / 32;
// Blocks that must fit a multiprocessor. Left to itself ptxas aims higher and spills for it.
constexpr int kMinBlocks = 2;
// value, derivative, x, x_sign, y, y_sign, as in Sums. Elements outside a formula's domain are not counted: to report them, the host
// would have to wait for the card. The formulas give NaN there.
constexpr int kSums = 6;
// loss, then the sums of real, of real's signs, of fake, of fake's signs
constexpr int kFolded = 5;

struct SegmentWork {
  double scale;         // the segment's share of the loss is scale * sum of values: 1/n for a mean, 1 for a sum
  double inverse_n;     // 1/n; infinite for an empty segment, whose mean is then 0 * inf = NaN
  double other_factor;  // the factor of segment `other`
  double inverse_inner; // 1 / inner
  int unit_end;
  short side;    // 0 real, 1 fake: where x's statistics belong; y's go to fake
  short vector;  // every pointer is a multiple of 16, and `inner` is 1 or a multiple of the elements in 16 bytes
  int index;     // of the segment in the whole list, where that takes several launches
  int other;     // index of the segment whose mean shifts this one, and whose derivatives reach it through its own mean
};

struct ReduceTarget {
  double* partials;        // [units][kSums]; null in a launch of one block
  unsigned* ticket;        // zero before and after; null in a launch of one block
  const double* carry_in;  // [kFolded] of the launches before, or null in the first
  double* carry_out;       // [kFolded] for the next launch, or null in the last, which writes the results
  void* loss;              // one number of the result type, or null
  void* stats;             // five: loss, mean of real, of fake, mean sign of real, of fake; or null
  double inverse_real_count, inverse_fake_count;
  double* means;           // by segment index: the mean of x; or null
  double* derivatives;     // by segment index: the sum of derivatives; or null
};

// Numbers: what an op's term is made of, for each segment.
struct NoNumbers {};

template <class Numbers>
struct MapReduceArguments {
  Segment segment[kMaxSegments];
  Numbers numbers[kMaxSegments];
  SegmentWork work[kMaxSegments];
  int count;
  int warp_units;            // units are the warps of one block
  const void* grad_output;   // one number of the result type that multiplies every factor; or null
  const double* shifts;      // by segment index: means of x; or null
  const double* offsets;     // by segment index: sums of derivatives; or null
  ReduceTarget target;
};

}  // namespace gan_fast::cuda
