// The checks of bias_act, its view of tensors as samples, channels and pixels, and the passes as both devices are given them.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <optional>
#include <tuple>

#include "bias_act/bias_act.h"
#include "common/host.h"

namespace gan_fast {

using OptionalTensor = std::optional<Tensor>;
using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;
using FourTensors = std::tuple<Tensor, Tensor, Tensor, Tensor>;
using FiveTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

// The tensors of a call, undefined where absent, and its numbers.
struct BiasActCall {
  Tensor x, y, b, scale, noise;
  int64_t dim;
  BiasActNumbers numbers;

  BiasActCall(
      const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
      const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp);
  // What shapes and memory orders are taken from.
  const Tensor& like(const Tensor& dy) const { return y.defined() ? y : x.defined() ? x : dy; }
};

// Check everything that does not read data, on symbolic shapes too, and make dim count from the start.
void check_bias_act(const Tensor& like, BiasActCall& call);
void check_bias_act_backward(const Tensor& dy, BiasActCall& call, bool reads_x);
void check_cotangents(const std::array<Tensor, 4>& cotangents, const Tensor& dy, const BiasActCall& call);

// How memory is walked: as samples x channels x pixels (planar) or samples x pixels x channels. Where nothing goes along
// channels all elements are pixels of one.
struct BiasActView {
  bool planar;
  int64_t samples, channels, pixels;
  Tensor model;  // of the memory order that every tensor is brought to

  BiasActView(const Tensor& like, int64_t dim, bool by_channel, bool by_sample);
  // x in that order, a copy where it lies in another; undefined stays undefined
  Tensor ordered(const Tensor& x) const;
};

// A result with the strides of empty_like(like), and what a kernel writes: the result itself where it lies in the view's order.
struct BiasActTarget {
  Tensor result, memory;
  BiasActTarget() = default;
  BiasActTarget(const BiasActView& view, const Tensor& like);
  void* pointer() const { return memory.defined() ? memory.mutable_data_ptr() : nullptr; }
  Tensor finish(const Tensor& otherwise) const;
};

// A parameter in the accumulation type; `stride` elements lie between samples, 0 where all share them.
struct BiasActParameter {
  Tensor values;
  int64_t stride = 0;
  const void* pointer() const { return values.defined() ? values.const_data_ptr() : nullptr; }
};

// One pass, for either device: its tensors in the view's order, parameters and targets. Scale and bias are always there, as
// numbers that change nothing if need be.
struct BiasActPass {
  int order;
  Tensor like;
  BiasActView view;
  at::TensorOptions wide;
  BiasActParameter scale, bias, noise, tscale, tbias, tnoise;
  Tensor v, x, y, t;
  BiasActTarget out, out2;
  bool reads_tscale = false;

  static BiasActPass forward(const BiasActCall& call);
  // wanted: dx, db, dscale, dnoise. In place, dx takes the memory of dy, through a tensor between where it lies in another order.
  static BiasActPass backward(
      const Tensor& dy, const BiasActCall& call, const std::array<bool, 4>& wanted, bool in_place = false);
  // cotangents of dx, db, dscale, dnoise; wanted: ddy, dx, db, dscale, dnoise
  static BiasActPass double_backward(
      const std::array<Tensor, 4>& cotangents, const Tensor& dy, const BiasActCall& call, const std::array<bool, 5>& wanted);

 private:
  BiasActPass(int order, const Tensor& like, const BiasActCall& call, bool by_channel, bool by_sample);
  BiasActParameter of_channels(const Tensor& v, double otherwise) const;
  BiasActParameter of_pixels(const Tensor& v) const;
};

// Runs the pass and returns db, dscale, dnoise where wanted.
std::array<Tensor, 3> run_bias_act_on_cpu(const BiasActPass& pass, const BiasActCall& call, const std::array<bool, 3>& wanted);

// (ddy, dx, db, dscale, dnoise) put together from aten's differentiable functions: what third and higher orders go through.
FiveTensors differentiable_double_backward(
    const std::array<Tensor, 4>& cotangents, const Tensor& dy, const BiasActCall& call, const std::array<bool, 5>& wanted);

}  // namespace gan_fast
