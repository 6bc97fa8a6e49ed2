// What the gradient penalty kernels are given. Read by host and device, so nothing but plain types.
//
// A unit of work is a part of a row (a sample's gradient): unit u has part u % parts of row u / parts. A unit is a block, or for short
// rows a warp, and then a row has one part. Which unit sums what depends on nothing but the sizes and the card, so results repeat.
#pragma once

#include "common/cuda/map_reduce_arguments.h"

namespace gan_fast::cuda {

struct GradientPenaltyArguments {
  const void* x;            // g: row i begins at i * x_stride
  void* out;                // its gradient: row i begins at i * inner
  const void* grad_output;  // one number of the accumulation type
  void* norms;              // [rows] of the accumulation type: squared norms, written by the one kernel, read by the other
  void* penalty;            // one number of the accumulation type
  double* partials;         // [rows * parts]
  unsigned* ticket;         // zero before and after
  long long rows, inner, x_stride;
  int parts;
  int warp_units;
  int vector;  // every row of x and out begins at a multiple of 16 bytes
  int kind;
  double center, factor;  // factor: w / N
};

}  // namespace gan_fast::cuda
