// Modulated convolution with its epilogue as one op: schemas, shapes for tracing, autograd to any order.
//
//   y = E(z + noise + b)      z[n,o,p] = d[n,o] sum_{i,t} w[o,i,t] s[n,i] x[n,i,p+t]      E(u) = clamp(gain act(u))
//
// z comes from a form F(dz, x, w, s, d) = <dz, z> that is linear in each of five arguments, so the derivative of F in
// one of them, differentiated again, is the derivative in another with a cotangent in the place of the first:
//
//   modulated_convolution                 dF/d dz = z, and then the epilogue
//   modulated_convolution_input_gradient  dF/dx = s g and, where x is given, dF/ds = sum_p x g; g is dF/dx without s
//   modulated_convolution_weight_gradient dF/dw
//
// and no order of gradient needs a product that is not one of the three. act is linear, relu or leaky relu and gain is
// positive: then E is homogeneous, E'(u) u = E(u) inside the clamp, and
//
//   modulated_convolution_epilogue_gradient   dz = dy E', sums = sum_p dz, products = sum_p (dy y [|y| < clamp] - dz noise)
//
// gives d's gradient (products - b sums) / d from y: neither z nor s x is ever kept. d must not be zero.
//
// w may be wider than x: of the type of sums. dw is of dz's type then.
//
// Kernels: Triton on CUDA (gan_fast/triton), Winograd's on the CPU (modulated_convolution_host.cpp), elsewhere torch's
// convolution between two elementwise passes (gan_fast/reference/modulated_convolution.py).

#include <ATen/ExpandUtils.h>
#include <torch/library.h>

#include "common/bilinear.h"
#include "common/host.h"
#include "convolution/convolution_host.h"
#include "modulated_convolution/modulated_convolution_checks.h"

namespace gan_fast {
namespace {

using OptionalTensor = std::optional<Tensor>;
using Pair = std::tuple<Tensor, Tensor>;
using Triple = std::tuple<Tensor, Tensor, Tensor>;

struct Epilogue {
  int64_t act = 0;
  double alpha = 0, gain = 1, clamp = -1;
};

// ---- The ops, through the dispatcher

Tensor forward(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, const Epilogue& e) {
  static const auto op = find_op<Tensor(
      const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
      const OptionalTensor&, int64_t, int64_t, double, double, double)>("gan_fast::modulated_convolution");
  return op.call(x, w, s, d, noise, bias, padding, e.act, e.alpha, e.gain, e.clamp);
}

// z alone
Tensor product(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, int64_t padding) {
  return forward(x, w, s, d, std::nullopt, std::nullopt, padding, {});
}

Pair input_gradient(
    const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& x,
    int64_t padding) {
  static const auto op = find_op<Pair(
      const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, int64_t)>(
      "gan_fast::modulated_convolution_input_gradient");
  return op.call(dz, w, s, d, x, padding);
}

Tensor weight_gradient(
    const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d, int64_t size,
    int64_t padding) {
  static const auto op = find_op<Tensor(
      const Tensor&, const Tensor&, const OptionalTensor&, const OptionalTensor&, int64_t, int64_t)>(
      "gan_fast::modulated_convolution_weight_gradient");
  return op.call(dz, x, s, d, size, padding);
}

Triple epilogue_gradient(const Tensor& dy, const Tensor& y, const OptionalTensor& noise, const Epilogue& e) {
  static const auto op =
      find_op<Triple(const Tensor&, const Tensor&, const OptionalTensor&, int64_t, double, double, double)>(
          "gan_fast::modulated_convolution_epilogue_gradient");
  return op.call(dy, y, noise, e.act, e.alpha, e.gain, e.clamp);
}

// ---- Shapes for tracing: images have the memory order of the one they are made from, dw is channels_last

at::TensorOptions sums_like(const Tensor& x) {
  return x.options().dtype(accumulate_type(x.scalar_type()));
}

Tensor forward_meta(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, int64_t act, double, double gain, double) {
  modulated_convolution::check_forward(x, w, s, d, noise, bias, padding, act, gain);
  const c10::SymInt grown = 2 * padding + 1 - w.sym_size(2);
  return at::empty_symint(
      {x.sym_size(0), w.sym_size(0), x.sym_size(2) + grown, x.sym_size(3) + grown}, x.options(),
      x.suggest_memory_format());
}

Pair input_gradient_meta(
    const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& x,
    int64_t padding) {
  modulated_convolution::check_input_gradient(dz, w, s, d, x, padding);
  const c10::SymInt grown = w.sym_size(2) - 1 - 2 * padding;
  const bool reduce = x.has_value() && x->defined();
  return {
      at::empty_symint(
          {dz.sym_size(0), w.sym_size(1), dz.sym_size(2) + grown, dz.sym_size(3) + grown}, dz.options(),
          dz.suggest_memory_format()),
      reduce ? at::empty_symint({dz.sym_size(0), w.sym_size(1)}, sums_like(dz)) : at::empty({0}, sums_like(dz))};
}

Tensor weight_gradient_meta(
    const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d, int64_t size,
    int64_t padding) {
  modulated_convolution::check_weight_gradient(dz, x, s, d, size, padding);
  return at::empty_symint(
      {dz.sym_size(1), x.sym_size(1), size, size}, dz.options(), at::MemoryFormat::ChannelsLast);
}

Triple epilogue_gradient_meta(
    const Tensor& dy, const Tensor& y, const OptionalTensor& noise, int64_t act, double, double gain, double) {
  modulated_convolution::check_epilogue_gradient(dy, y, noise, act, gain);
  const auto sums = [&] { return at::empty_symint({dy.sym_size(0), dy.sym_size(1)}, sums_like(dy)); };
  return {
      at::empty_symint(y.sym_sizes(), y.options(), y.suggest_memory_format()), sums(), sums()};
}

// ---- Autograd

// needs_input_grad counts the tensors that are there, not the arguments: this gives each argument its number.
class Wanted {
 public:
  explicit Wanted(AutogradContext* ctx) : ctx_(ctx) {}

  bool next(const Tensor& saved) {
    return saved.defined() && ctx_->needs_input_grad(edge_++);
  }

 private:
  AutogradContext* ctx_;
  size_t edge_ = 0;
};

Tensor or_none(const OptionalTensor& t) {
  return t.has_value() ? *t : Tensor();
}

OptionalTensor optional(const Tensor& t) {
  return t.defined() ? OptionalTensor(t) : std::nullopt;
}

// [N, C] as [N, C, 1, 1] in the accumulation type of `like`
Tensor over_pixels(const Tensor& v, const Tensor& like) {
  return v.to(accumulate_type(like.scalar_type())).unsqueeze(-1).unsqueeze(-1);
}

// One pass each of the ops of bias_act with u = x scale, which are differentiable to any order.

constexpr int64_t kChannels = 1;

// x v in the type of x.
Tensor scaled(const Tensor& x, const Tensor& v) {
  static const auto op = find_op<Tensor(
      const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, int64_t, int64_t, double, double,
      double)>("gan_fast::bias_act");
  return v.defined() ? op.call(x, std::nullopt, v, std::nullopt, kChannels, 0, 0, 1, -1) : x;
}

// Of bias_act_backward: dx, or the gradient of a parameter.
Tensor through_bias_act(
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& scale,
    const OptionalTensor& noise, double clamp, const std::array<bool, 4>& wanted) {
  using Four = std::tuple<Tensor, Tensor, Tensor, Tensor>;
  static const auto op = find_op<Four(
      const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
      const OptionalTensor&, int64_t, int64_t, double, double, double, std::array<bool, 4>)>(
      "gan_fast::bias_act_backward");
  auto [dx, db, dscale, dnoise] =
      op.call(dy, x, y, std::nullopt, scale, noise, kChannels, 0, 0, 1, clamp, wanted);
  return wanted[0] ? dx : wanted[2] ? dscale : dnoise;
}

// sum over the pixels of a b, [N, C]
Tensor pixel_products(const Tensor& a, const Tensor& b) {
  const Tensor scale = at::ones_symint({a.sym_size(0), a.sym_size(1)}, sums_like(a));
  return through_bias_act(a, b, std::nullopt, scale, std::nullopt, -1, {false, false, true, false});
}

// a v [|y| < clamp] in the type of a, with the bound rounded to it
Tensor scaled_inside(const Tensor& a, const Tensor& v, const Tensor& y, double clamp) {
  return clamp < 0 ? scaled(a, v)
                   : through_bias_act(a, std::nullopt, y, v, std::nullopt, clamp, {true, false, false, false});
}

// sum of dz over what noise is the same for
Tensor noise_gradient(const Tensor& dz, const Tensor& noise) {
  return through_bias_act(dz, std::nullopt, std::nullopt, std::nullopt, noise, -1, {false, false, false, true});
}

// t s + x u in the type of x, rounded once
Tensor sum_of_scaled(const Tensor& t, const Tensor& s, const Tensor& x, const Tensor& u) {
  using Five = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;
  static const auto op = find_op<Five(
      const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&,
      const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
      int64_t, int64_t, double, double, double, std::array<bool, 5>)>("gan_fast::bias_act_double_backward");
  const Tensor scale = s.defined() ? s : at::ones_symint(u.sym_sizes(), u.options());
  return std::get<0>(op.call(
      t, std::nullopt, u, std::nullopt, x, x, std::nullopt, std::nullopt, scale, std::nullopt, kChannels, 0, 0, 1, -1,
      {true, false, false, false, false}));
}

Tensor as(const Tensor& t, const Tensor& like) {
  return t.to(like.scalar_type());
}

// As for any convolution's weight, where the caller has switched its gradient off for now.
bool computes_gradient_of(const Tensor& w) {
  return convolution_weight_gradients || flows_beyond_kernels(w);
}

// The gradients of F(dz, x, w, s, d) in dz and d, from z without d where both are wanted.
void through_output(
    const Tensor& dz, const Tensor& x, const Tensor& w, const OptionalTensor& s, const Tensor& d, int64_t padding,
    bool want_dz, bool want_d, Tensor& to_dz, Tensor& to_d) {
  if (want_d) {
    const Tensor bare = product(x, w, s, std::nullopt, padding);
    to_d = as(pixel_products(dz, bare), d);
    if (want_dz) {
      to_dz = scaled(bare, d);
    }
  } else if (want_dz) {
    to_dz = product(x, w, s, optional(d), padding);
  }
}

struct InputGradient : torch::autograd::Function<InputGradient> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d,
      const OptionalTensor& x, int64_t padding) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dz, w, or_none(s), or_none(d), or_none(x)});
    ctx->saved_data["padding"] = padding;
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [dx, ds] = input_gradient(dz, w, s, d, x, padding);
    return {dx, ds};
  }

  // Of <t, s g> + <u, sum_p x g> = <r, g> with r = s t + u x.
  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(6);
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &dz = saved[0], &w = saved[1], &s = saved[2], &d = saved[3], &x = saved[4];
    const Tensor& t = grads[0];
    const Tensor u = x.defined() ? grads[1] : Tensor();
    if (!t.defined() && !u.defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const int64_t padding = ctx->saved_data["padding"].toInt();
    Wanted wanted(ctx);
    const bool want_dz = wanted.next(dz), want_w = wanted.next(w), want_s = wanted.next(s), want_d = wanted.next(d),
               want_x = wanted.next(x);
    Tensor r = t;
    OptionalTensor left = optional(s);  // what of s is not in r
    if (u.defined()) {
      r = t.defined() ? sum_of_scaled(t, s, x, u) : scaled(x, u);
      left = std::nullopt;
    }
    through_output(dz, r, w, left, d, padding, want_dz, want_d, out[0], out[3]);
    if (want_w && computes_gradient_of(w)) {
      out[1] = as(weight_gradient(dz, r, left, optional(d), w.size(2), padding), w);
    }
    if ((want_s && t.defined()) || (want_x && u.defined())) {
      const Tensor g = std::get<0>(input_gradient(dz, w, std::nullopt, optional(d), std::nullopt, padding));
      if (want_s && t.defined()) {
        out[2] = as(pixel_products(t, g), s);
      }
      if (want_x && u.defined()) {
        out[4] = scaled(g, u);
      }
    }
    return out;
  }
};

struct WeightGradient : torch::autograd::Function<WeightGradient> {
  static Tensor forward(
      AutogradContext* ctx, const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d,
      int64_t size, int64_t padding) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dz, x, or_none(s), or_none(d)});
    ctx->saved_data["padding"] = padding;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return weight_gradient(dz, x, s, d, size, padding);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(6);
    const Tensor& v = grads[0];
    if (!v.defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &dz = saved[0], &x = saved[1], &s = saved[2], &d = saved[3];
    const int64_t padding = ctx->saved_data["padding"].toInt();
    Wanted wanted(ctx);
    const bool want_dz = wanted.next(dz), want_x = wanted.next(x), want_s = wanted.next(s), want_d = wanted.next(d);
    through_output(dz, x, v, optional(s), d, padding, want_dz, want_d, out[0], out[3]);
    if (want_x || want_s) {
      auto [dx, ds] =
          input_gradient(dz, v, optional(s), optional(d), want_s ? OptionalTensor(x) : std::nullopt, padding);
      if (want_x) {
        out[1] = dx;
      }
      if (want_s) {
        out[2] = as(ds, s);
      }
    }
    return out;
  }
};

void save(AutogradContext* ctx, const Epilogue& e) {
  ctx->saved_data["act"] = e.act;
  ctx->saved_data["alpha"] = e.alpha;
  ctx->saved_data["gain"] = e.gain;
  ctx->saved_data["clamp"] = e.clamp;
}

Epilogue epilogue_of(AutogradContext* ctx) {
  return {
      ctx->saved_data["act"].toInt(), ctx->saved_data["alpha"].toDouble(), ctx->saved_data["gain"].toDouble(),
      ctx->saved_data["clamp"].toDouble()};
}

// dz, sums and products are linear in dy; products depends on y and noise too. y's own graph is the forward's.
struct EpilogueGradient : torch::autograd::Function<EpilogueGradient> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& dy, const Tensor& y, const OptionalTensor& noise, const Epilogue& e) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({dy, y, or_none(noise)});
    save(ctx, e);
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [dz, sums, products] = epilogue_gradient(dy, y, noise, e);
    return {dz, sums, products};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(4);
    const Tensor &t = grads[0], &a = grads[1], &c = grads[2];
    if (!t.defined() && !a.defined() && !c.defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &dy = saved[0], &y = saved[1], &noise = saved[2];
    const Epilogue e = epilogue_of(ctx);
    Wanted wanted(ctx);
    const bool want_dy = wanted.next(dy), want_y = wanted.next(y), want_noise = wanted.next(noise);
    if (want_dy) {
      Tensor through = t;  // the cotangent of dz
      const auto add = [&](const Tensor& more) { through = through.defined() ? through + more : more; };
      if (a.defined()) {
        add(over_pixels(a, y));
      }
      if (c.defined() && noise.defined()) {
        add(-over_pixels(c, y) * noise);
      }
      if (through.defined()) {
        through = as(through.expand_symint(y.sym_sizes()), y);
        out[0] = std::get<0>(epilogue_gradient(through, y, std::nullopt, e));
      }
      if (c.defined()) {
        const Tensor more = scaled_inside(y, c, y.detach(), e.clamp);
        out[0] = out[0].defined() ? out[0] + more : more;
      }
    }
    if (want_y && c.defined()) {
      out[1] = scaled_inside(dy, c, y.detach(), e.clamp);
    }
    if (want_noise && c.defined()) {
      const Tensor dz = std::get<0>(epilogue_gradient(dy, y, std::nullopt, e));
      out[2] = as(-noise_gradient(scaled(dz, c), noise), noise);
    }
    return out;
  }
};

struct ModulatedConvolution : torch::autograd::Function<ModulatedConvolution> {
  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d,
      const OptionalTensor& noise, const OptionalTensor& bias, int64_t padding, const Epilogue& e) {
    ctx->set_materialize_grads(false);
    Tensor y;
    {
      const at::AutoDispatchBelowADInplaceOrView guard;
      y = gan_fast::forward(x, w, s, d, noise, bias, padding, e);
    }
    ctx->save_for_backward({x, w, or_none(s), or_none(d), or_none(noise), or_none(bias), y});
    ctx->saved_data["padding"] = padding;
    save(ctx, e);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(8);
    if (!grads[0].defined()) {
      return out;
    }
    const WithoutAutocast plain;
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &x = saved[0], &w = saved[1], &s = saved[2], &d = saved[3], &noise = saved[4], &bias = saved[5],
                 &y = saved[6];
    const int64_t padding = ctx->saved_data["padding"].toInt();
    const Epilogue e = epilogue_of(ctx);
    const Tensor dy = grads[0].contiguous(y.suggest_memory_format());  // the products' rules look at the order
    Wanted wanted(ctx);
    const bool want_x = wanted.next(x), want_w = wanted.next(w), want_s = wanted.next(s), want_d = wanted.next(d),
               want_noise = wanted.next(noise), want_bias = wanted.next(bias);
    Tensor dz = dy, sums, products;
    if (want_d || want_bias || e.act != 0 || e.gain != 1 || e.clamp >= 0) {
      std::tie(dz, sums, products) = epilogue_gradient(dy, y, want_d ? optional(noise) : std::nullopt, e);
    }
    if (want_x || want_s) {
      auto [dx, ds] =
          input_gradient(dz, w, optional(s), optional(d), want_s ? OptionalTensor(x) : std::nullopt, padding);
      if (want_x) {
        out[0] = dx;
      }
      if (want_s) {
        out[2] = as(ds, s);
      }
    }
    if (want_w && computes_gradient_of(w)) {
      out[1] = as(weight_gradient(dz, x, optional(s), optional(d), w.size(2), padding), w);
    }
    if (want_d) {
      const Tensor bare = bias.defined() ? products - bias.to(sums.scalar_type()) * sums : products;
      out[3] = as(bare / d.to(sums.scalar_type()), d);
    }
    if (want_noise) {
      out[4] = as(noise_gradient(dz, noise), noise);
    }
    if (want_bias) {
      out[5] = as(sums.sum(0), bias);
    }
    return out;
  }
};

Tensor forward_autograd(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, int64_t act, double alpha, double gain, double clamp) {
  return ModulatedConvolution::apply(x, w, s, d, noise, bias, padding, Epilogue{act, alpha, gain, clamp});
}

Pair input_gradient_autograd(
    const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& x,
    int64_t padding) {
  variable_list out = InputGradient::apply(dz, w, s, d, x, padding);
  return {std::move(out[0]), std::move(out[1])};
}

Tensor weight_gradient_autograd(
    const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d, int64_t size,
    int64_t padding) {
  return WeightGradient::apply(dz, x, s, d, size, padding);
}

Triple epilogue_gradient_autograd(
    const Tensor& dy, const Tensor& y, const OptionalTensor& noise, int64_t act, double alpha, double gain,
    double clamp) {
  variable_list out = EpilogueGradient::apply(dy, y, noise, Epilogue{act, alpha, gain, clamp});
  return {std::move(out[0]), std::move(out[1]), std::move(out[2])};
}

template <c10::DeviceType kDevice>
Tensor forward_autocast(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, int64_t act, double alpha, double gain, double clamp) {
  const WithoutAutocast plain;
  return forward(narrow<kDevice>(x), narrow<kDevice>(w), s, d, noise, bias, padding, {act, alpha, gain, clamp});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "modulated_convolution(Tensor x, Tensor w, Tensor? s, Tensor? d, Tensor? noise, Tensor? bias, int padding, "
      "int act, float alpha, float gain, float clamp) -> Tensor");
  m.def(
      "modulated_convolution_input_gradient(Tensor dz, Tensor w, Tensor? s, Tensor? d, Tensor? x, int padding) "
      "-> (Tensor dx, Tensor ds)");
  m.def(
      "modulated_convolution_weight_gradient(Tensor dz, Tensor x, Tensor? s, Tensor? d, int size, int padding) "
      "-> Tensor");
  m.def(
      "modulated_convolution_epilogue_gradient(Tensor dy, Tensor y, Tensor? noise, int act, float alpha, float gain, "
      "float clamp) -> (Tensor dz, Tensor sums, Tensor products)");
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("modulated_convolution", &forward_meta);
  m.impl("modulated_convolution_input_gradient", &input_gradient_meta);
  m.impl("modulated_convolution_weight_gradient", &weight_gradient_meta);
  m.impl("modulated_convolution_epilogue_gradient", &epilogue_gradient_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("modulated_convolution", &forward_autograd);
  m.impl("modulated_convolution_input_gradient", &input_gradient_autograd);
  m.impl("modulated_convolution_weight_gradient", &weight_gradient_autograd);
  m.impl("modulated_convolution_epilogue_gradient", &epilogue_gradient_autograd);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCPU, m) {
  m.impl("modulated_convolution", &forward_autocast<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCUDA, m) {
  m.impl("modulated_convolution", &forward_autocast<c10::DeviceType::CUDA>);
}

}  // namespace gan_fast
