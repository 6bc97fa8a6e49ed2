// The double backward of bias_act in aten's differentiable functions: the same formulas as the kernels', an order further up.

#include "bias_act/bias_act_host.h"

namespace gan_fast {
namespace {

constexpr double kSeluScale = 1.0507009873554804934193349852946, kSeluAlpha = 1.6732632423543772848170429916717;

struct Slopes {
  Tensor value, first, second;  // second: undefined where it is zero
};

// act(u), act'(u), act''(u)
Slopes slopes_of(const Tensor& u, const BiasActNumbers& p) {
  const Tensor s = at::sigmoid(u), m = at::sigmoid(-u);
  switch (static_cast<Activation>(p.act)) {
    case Activation::Tanh: {
      const Tensor h = at::tanh(u), first = 1 - h * h;
      return {h, first, -2 * h * first};
    }
    case Activation::Sigmoid:
      return {s, s * m, s * m * (m - s)};
    case Activation::Softplus:
      return {-at::log_sigmoid(-u), s, s * m};
    case Activation::Swish:
      return {u * s, s * (1 + u * m), s * m * (2 + u * (m - s))};
    case Activation::Elu:
    case Activation::Selu: {
      const bool selu = p.act == static_cast<int>(Activation::Selu);
      const Tensor above = u.detach().gt(0), e = (selu ? kSeluScale * kSeluAlpha : 1.0) * at::exp(u.masked_fill(above, 0));
      const Tensor one = at::full_like(u, selu ? kSeluScale : 1.0);
      return {at::where(above, u * one, e - (selu ? kSeluScale * kSeluAlpha : 1.0)), at::where(above, one, e), e.masked_fill(above, 0)};
    }
    default: {
      const Tensor first = at::where(u.detach().gt(0), at::full_like(u, 1.0), at::full_like(u, slope_below(p)));
      return {u * first, first, {}};
    }
  }
}

// [N, C] as [N, C, 1, ...], [C] as [C, 1, ...]
Tensor beside(Tensor t, int64_t dimensions) {
  for (int64_t d = 0; d < dimensions; ++d) {
    t = t.unsqueeze(-1);
  }
  return t;
}

Tensor times(const Tensor& a, const Tensor& b) {
  return b.defined() ? a * b : a;
}

Tensor plus(const Tensor& a, const Tensor& b) {
  return !a.defined() ? b : b.defined() ? a + b : a;
}

}  // namespace

FiveTensors differentiable_double_backward(
    const std::array<Tensor, 4>& cotangents, const Tensor& dy, const BiasActCall& call, const std::array<bool, 5>& wanted) {
  const at::ScalarType wide = accumulate_type(dy.scalar_type());
  const int64_t rank = dy.dim();
  const auto widened = [&](const Tensor& t) { return t.defined() ? t.to(wide) : t; };
  const auto by_sample = [&](const Tensor& t) { return t.defined() ? beside(t.to(wide), rank - 2) : t; };
  const auto by_channel = [&](const Tensor& t) { return t.defined() ? beside(t.to(wide), rank - 1 - call.dim) : t; };
  const BiasActNumbers& p = call.numbers;
  const Tensor x = widened(call.x), c = widened(dy), scale = by_sample(call.scale);
  const Tensor tx = widened(cotangents[0]), tscale = by_sample(cotangents[2]);

  Slopes slopes;
  Tensor y, outside;
  if (reads_input(p)) {
    slopes = slopes_of(plus(plus(times(x, scale), widened(call.noise)), by_channel(call.b)), p);
    outside = p.clamp >= 0 ? (p.gain * slopes.value).detach().abs().ge(p.clamp) : Tensor();
  } else if (reads_result(p)) {
    y = call.y.detach();
    slopes = slopes_of(p.gain < 0 ? -y.to(wide) : y.to(wide), p);
    const Tensor bound = at::scalar_tensor(p.clamp, y.options().memory_format(std::nullopt));
    outside = p.clamp >= 0 ? y.abs().ge(bound) : Tensor();
  } else {
    slopes.first = at::ones_like(c);
  }
  const auto slope = [&](const Tensor& t) {
    const Tensor d = p.gain * t;
    return outside.defined() ? d.masked_fill(outside, 0) : d;
  };
  const Tensor first = slope(slopes.first), g = c * first;
  Tensor t = tx.defined() ? times(tx, scale) : Tensor();
  t = plus(t, tscale.defined() ? x * tscale : Tensor());
  t = plus(plus(t, widened(cotangents[3])), by_channel(cotangents[1]));
  if (!t.defined()) {
    t = at::zeros_like(g);
  }
  const Tensor q = slopes.second.defined() ? c * slope(slopes.second) * t : Tensor();

  const auto as = [&](bool is_wanted, const Tensor& value, const Tensor& like) {
    if (!is_wanted || !like.defined()) {
      return at::empty({0}, dy.options().memory_format(std::nullopt));
    }
    return value.defined() ? value.to(like.scalar_type()) : at::zeros_like(like);
  };
  const auto summed = [](const Tensor& value, const Tensor& spread, const Tensor& like) {
    return value.defined() && like.defined() ? value.sum_to_size_symint(spread.sym_sizes()).reshape_symint(like.sym_sizes()) : Tensor();
  };
  const Tensor dx = plus(q.defined() ? times(q, scale) : Tensor(), tscale.defined() ? g * tscale : Tensor());
  const Tensor dscale = plus(q.defined() && x.defined() ? q * x : Tensor(), tx.defined() ? g * tx : Tensor());
  return {
      as(wanted[0], first * t, dy), as(wanted[1], dx, dy),
      as(wanted[2], wanted[2] ? summed(q, by_channel(call.b), call.b) : Tensor(), call.b),
      as(wanted[3], wanted[3] ? summed(dscale, scale, call.scale) : Tensor(), call.scale),
      as(wanted[4], wanted[4] ? summed(q, call.noise, call.noise) : Tensor(), call.noise)};
}

}  // namespace gan_fast
