// What a CPU kernel of bias_act is given: one pass over memory, cut into tasks.
//
// Elements form samples x channels x pixels ("planar": contiguous) or samples x pixels x channels (channels_last). A task
// is, planar, `chunk` pixels of one channel, or of all channels where a gradient of the noise is summed over them;
// channels_last `chunk` pixels with all their channels. Tasks have a size of their own and write sums of their own, so
// results do not depend on the number of threads.
#pragma once

#include "bias_act/bias_act.h"

namespace gan_fast {

struct BiasActJob {
  int storage;
  int order;  // 0 forward, 1 backward, 2 double backward
  bool planar;
  BiasActNumbers numbers;
  long long samples, channels, pixels, chunk;

  // Of the storage type, null where absent. v: x (order 0) or dy; t: the cotangent of dx; out: y, dx or ddy; out2: dx (order 2).
  const void *v, *x, *y, *t;
  void *out, *out2;

  // Of the accumulation type. scale, tscale: [samples or 1, channels]; bias, tbias: [channels]; noise, tnoise: [samples or
  // 1, pixels] or null. Strides are between samples, 0 where all share one.
  const void *scale, *bias, *noise, *tscale, *tbias, *tnoise;
  long long scale_stride, noise_stride, tscale_stride, tnoise_stride;
  bool reads_tscale;  // a cotangent of dscale is given: x is read

  // Of the accumulation type, null where not wanted: for each sample, chunk and channel (planar: sample, channel, chunk)
  // the sums that db and dscale are made of, and for each sample and pixel the sum over channels.
  void *sums, *scale_sums, *noise_sums;

  long long chunks() const { return (pixels + chunk - 1) / chunk; }
  bool loops_channels() const { return planar && noise_sums != nullptr; }
  long long tasks() const { return samples * chunks() * (planar && !loops_channels() ? channels : 1); }
};

}  // namespace gan_fast
