// The ops of modulated convolution on the CPU: Winograd's kernels, which apply style and demodulation as they read and
// the rest of the layer as they write, or torch's convolution between two elementwise passes. `ops.modulated_conv2d`
// calls them only where it expects the first (`winograd_layer_limits`): the second is slower than what it composes.

#include <ATen/ExpandUtils.h>
#include <torch/library.h>

#include <tuple>

#include "common/host.h"
#include "convolution/winograd_host.h"
#include "modulated_convolution/modulated_convolution_checks.h"

namespace gan_fast {
namespace {

using namespace modulated_convolution;

bool are_readable(std::initializer_list<OptionalTensor> tensors) {
  bool all = true;
  for (const OptionalTensor& t : tensors) {
    if (t.has_value() && t->defined()) {
      TORCH_CHECK(
          !t->has_storage() || t->unsafeGetTensorImpl()->storage_initialized(),
          "modulated_convolution got a tensor of shape ", t->sizes(), " whose memory is not allocated");
      all = all && is_readable(*t);
    }
  }
  return all;
}

Tensor given(const OptionalTensor& t) {
  return t.has_value() ? *t : Tensor();
}

Tensor over_pixels(const Tensor& v, const Tensor& like) {
  return v.to(accumulate_type(like.scalar_type())).unsqueeze(-1).unsqueeze(-1);
}

// x [N, C, H, W] times v [N, C], in x's type.
Tensor scaled(const Tensor& x, const Tensor& v) {
  return v.defined() ? (x * over_pixels(v, x)).to(x.scalar_type()) : x;
}

Tensor in_order_of(const Tensor& y, const Tensor& x) {
  return y.contiguous(x.suggest_memory_format());
}

Tensor forward(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, int64_t act, double alpha, double gain, double clamp) {
  check_forward(x, w, s, d, noise, bias, padding, act, gain);
  if (are_readable({x, w, s, d, noise, bias}) && winograd_layer_serves(x, w, padding)) {
    return winograd_layer(x, w, given(s), given(d), given(noise), given(bias), padding, {act, alpha, gain, clamp});
  }
  const at::ScalarType type = accumulate_type(x.scalar_type());
  Tensor u = at::conv2d(scaled(x, given(s)), w.to(x.scalar_type()), {}, 1, padding).to(type);
  if (given(d).defined()) {
    u = u * over_pixels(*d, x);
  }
  if (given(noise).defined()) {
    u = u + noise->to(type);
  }
  if (given(bias).defined()) {
    u = u + bias->to(type).unsqueeze(-1).unsqueeze(-1);
  }
  if (act != 0) {
    u = at::leaky_relu(u, act == 2 ? alpha : 0.0);
  }
  u = u * gain;
  if (clamp >= 0) {
    u = u.clamp(-clamp, clamp);
  }
  return in_order_of(u.to(x.scalar_type()), x);
}

std::tuple<Tensor, Tensor> input_gradient(
    const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& x,
    int64_t padding) {
  check_input_gradient(dz, w, s, d, x, padding);
  if (are_readable({dz, w, s, d, x}) && winograd_layer_serves(dz, w.transpose(0, 1), 2 - padding) &&
      (!given(x).defined() || x->scalar_type() == dz.scalar_type())) {
    auto [dx, ds] = winograd_layer_input_gradient(dz, w, given(s), given(d), given(x), padding);
    return {std::move(dx), std::move(ds)};
  }
  const at::ScalarType type = accumulate_type(dz.scalar_type());
  const Tensor g = at::conv_transpose2d(scaled(dz, given(d)), w.to(dz.scalar_type()), {}, 1, padding);
  Tensor ds = given(x).defined() ? (g.to(type) * x->to(type)).sum({2, 3}) : at::empty({0}, dz.options().dtype(type));
  return {in_order_of(scaled(g, given(s)), dz), std::move(ds)};
}

Tensor weight_gradient(
    const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d, int64_t size,
    int64_t padding) {
  check_weight_gradient(dz, x, s, d, size, padding);
  const Tensor like = at::empty({dz.size(1), x.size(1), size, size}, x.options());
  if (are_readable({dz, x, s, d}) && dz.scalar_type() == x.scalar_type() && winograd_layer_serves(x, like, padding)) {
    return winograd_layer_weight_gradient(dz, x, given(s), given(d), padding);
  }
  const std::array<int64_t, 2> one{1, 1}, none{0, 0}, both{padding, padding};
  return std::get<1>(at::convolution_backward(
                         scaled(dz, given(d)), scaled(x, given(s)), like, at::OptionalIntArrayRef(), one, both, one,
                         false, none, 1, {false, true, false}))
      .contiguous(at::MemoryFormat::ChannelsLast);
}

std::tuple<Tensor, Tensor, Tensor> epilogue_gradient(
    const Tensor& dy, const Tensor& y, const OptionalTensor& noise, int64_t act, double alpha, double gain,
    double clamp) {
  check_epilogue_gradient(dy, y, noise, act, gain);
  if (are_readable({dy, y, noise}) && y.numel() > 0 && dy.scalar_type() == y.scalar_type() &&
      y.scalar_type() != at::kHalf && winograd_mode() != "never") {
    auto [dz, sums, products] = winograd_layer_epilogue_gradient(dy, y, given(noise), {act, alpha, gain, clamp});
    return {std::move(dz), std::move(sums), std::move(products)};
  }
  const at::ScalarType type = accumulate_type(y.scalar_type());
  Tensor g = dy.to(type);
  const Tensor v = y.to(type);
  if (clamp >= 0) {
    g = at::where(y.abs().lt(at::scalar_tensor(clamp, y.options())), g, 0.0);
  }
  Tensor products = g * v;
  g = g * gain;
  if (act != 0) {
    g = at::where(y > 0, g, g * (act == 2 ? alpha : 0.0));
  }
  if (given(noise).defined()) {
    products = products - g * noise->to(type);
  }
  return {in_order_of(g.to(y.scalar_type()), y), g.sum({2, 3}), products.sum({2, 3})};
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("modulated_convolution", &forward);
  m.impl("modulated_convolution_input_gradient", &input_gradient);
  m.impl("modulated_convolution_weight_gradient", &weight_gradient);
  m.impl("modulated_convolution_epilogue_gradient", &epilogue_gradient);
}

}  // namespace gan_fast
