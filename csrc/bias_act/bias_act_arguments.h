// What the kernels of bias_act are given. Read by host and device, so nothing but plain types.
//
// Elements form samples x channels x pixels (planar) or samples x pixels x channels (interleaved). A unit of work is a warp:
//   planar        `tile` pixels of one channel, or where a gradient of the noise is summed of `group` channels one after the
//                 other, then tile is no more than a packet for every lane;
//   interleaved   `tile` pixels of one strip of channels: `lanes` lanes have a packet of channels each, so that 32 / lanes
//                 pixels are read at a time, and a strip is lanes packets wide.
// Which unit sums what depends on nothing but the sizes, so results repeat.
#pragma once

#include "bias_act/bias_act.h"

namespace gan_fast::cuda {

struct BiasActArguments {
  BiasActNumbers numbers;
  double stored_bound;  // the clamp as the storage type holds it; NaN: none
  long long samples, channels, pixels;
  int vector;  // packets of 16 bytes instead of single elements
  int tile, group, lanes;
  long long tiles, groups, strips;  // pixels / tile, channels / group, channels / (lanes packets), each rounded up

  // Of the storage type, null where absent. v: x (forward) or dy; t: cotangent of dx; out: y, dx or ddy; out2: dx.
  const void *v, *x, *y, *t;
  void *out, *out2;

  // Of the accumulation type; strides are between samples, 0 where all share one. noise and tnoise may be null.
  const void *scale, *bias, *noise, *tscale, *tbias, *tnoise;
  long long scale_stride, noise_stride, tscale_stride, tnoise_stride;

  // Of the accumulation type, null where not wanted.
  void *sums, *scale_sums;  // [samples, channels, tiles] planar, [samples, tiles, channels] interleaved
  void* noise_sums;         // [samples, groups, pixels] planar, [samples, strips, pixels] interleaved
};

constexpr int kBiasActThreads = 256;
constexpr int kBiasActWarps = kBiasActThreads / 32;

}  // namespace gan_fast::cuda
