// Upsample by zeros, pad or crop, filter, keep every down-th sample. Along one axis, for o = 0 ... size - 1,
//
//   y[o] = sum_k h[k] u[o down + k - before],   k = 0 ... taps - 1,   u[i up] = x[i],  u = 0 elsewhere
//
// and the same along the other axis; h is the filter read backwards (a convolution) or as it is (a correlation).
// The adjoint exchanges up and down, turns the filter round, and has before' = taps - 1 - before.
//
// Polyphase: only every up-th tap meets a pixel. With g = gcd(up, down), P = up / g and D = down / g, result o = j P + r reads
//
//   x[j D + first_r + m] h[tap_r + m up],   m = 0 ... count_r - 1
#pragma once

#include "common/math.h"

namespace gan_fast {

GAN_FAST_HD long long floor_mod(long long a, long long b) {
  const long long r = a % b;
  return r < 0 ? r + b : r;
}

// What one result reads: input first + m with tap `tap` + m up, for m below count.
struct Phase {
  long long first;
  int tap, count;

  GAN_FAST_HD Phase(long long o, int up, int down, long long before, int taps) {
    const long long at = o * down - before;
    tap = static_cast<int>(floor_mod(-at, up));
    first = (at + tap) / up;
    count = tap < taps ? (taps - tap + up - 1) / up : 0;
  }
};

}  // namespace gan_fast
