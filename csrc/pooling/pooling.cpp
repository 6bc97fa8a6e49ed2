// Average and maximum pooling of images: schemas, autograd to any order.
//
//   avg_pool(x, ...) -> y                          linear: avg_pool_backward is its adjoint, of x the shape is read
//   max_pool(x, ...) -> (y, indices)               linear between the kinks, given where the maxima are:
//   max_pool_backward(dy, x, indices, ...) -> dx     dy put where the maxima were; of x the shape is read
//   max_pool_tangent(t, indices, ...) -> dy          t read where the maxima were, the adjoint of that
//
// No derivative depends on x, so the double backward sends nothing up the forward graph: aten's sends zeros.

#include <torch/library.h>

#include "common/bilinear.h"

namespace gan_fast {
namespace {

using at::IntArrayRef;

struct Window : torch::CustomClassHolder {
  std::vector<int64_t> kernel, stride, padding, dilation;
  bool ceil_mode, count_include_pad = true;
  std::optional<int64_t> divisor;
};

using WindowPtr = c10::intrusive_ptr<Window>;

WindowPtr window(
    IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation, bool ceil_mode,
    bool count_include_pad = true, std::optional<int64_t> divisor = std::nullopt) {
  auto w = c10::make_intrusive<Window>();
  w->kernel = kernel.vec();
  w->stride = stride.vec();
  w->padding = padding.vec();
  w->dilation = dilation.vec();
  w->ceil_mode = ceil_mode;
  w->count_include_pad = count_include_pad;
  w->divisor = divisor;
  return w;
}

// ---- average

Tensor avg_pool(
    const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, bool ceil_mode,
    bool count_include_pad, std::optional<int64_t> divisor) {
  return at::avg_pool2d(x, kernel, stride, padding, ceil_mode, count_include_pad, divisor);
}

Tensor avg_pool_backward(
    const Tensor& dy, const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, bool ceil_mode,
    bool count_include_pad, std::optional<int64_t> divisor) {
  return at::avg_pool2d_backward(dy, x, kernel, stride, padding, ceil_mode, count_include_pad, divisor);
}

Tensor call_avg_pool(const Tensor& x, const WindowPtr& w) {
  static const auto op = find_op<decltype(avg_pool)>("gan_fast::avg_pool");
  return op.call(x, w->kernel, w->stride, w->padding, w->ceil_mode, w->count_include_pad, w->divisor);
}

Tensor call_avg_pool_backward(const Tensor& dy, const Tensor& x, const WindowPtr& w) {
  static const auto op = find_op<decltype(avg_pool_backward)>("gan_fast::avg_pool_backward");
  return op.call(dy, x, w->kernel, w->stride, w->padding, w->ceil_mode, w->count_include_pad, w->divisor);
}

struct AvgPoolBackward : torch::autograd::Function<AvgPoolBackward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& dy, const Like& x, const WindowPtr& w) {
    ctx->set_materialize_grads(false);
    hold(ctx, "window", w);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_avg_pool_backward(dy, x.tensor, w);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (grads[0].defined()) {
      out[0] = call_avg_pool(grads[0], held<Window>(ctx, "window"));
    }
    return out;
  }
};

struct AvgPool : torch::autograd::Function<AvgPool> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const WindowPtr& w) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({x});
    hold(ctx, "window", w);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_avg_pool(x, w);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(2);
    if (grads[0].defined()) {
      out[0] = call_avg_pool_backward(grads[0], ctx->get_saved_variables()[0], held<Window>(ctx, "window"));
    }
    return out;
  }
};

Tensor avg_pool_autograd(
    const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, bool ceil_mode,
    bool count_include_pad, std::optional<int64_t> divisor) {
  return AvgPool::apply(x, window(kernel, stride, padding, {}, ceil_mode, count_include_pad, divisor));
}

Tensor avg_pool_backward_autograd(
    const Tensor& dy, const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, bool ceil_mode,
    bool count_include_pad, std::optional<int64_t> divisor) {
  return AvgPoolBackward::apply(dy, Like{x}, window(kernel, stride, padding, {}, ceil_mode, count_include_pad, divisor));
}

// ---- maximum

std::tuple<Tensor, Tensor> max_pool(
    const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
    bool ceil_mode) {
  return at::max_pool2d_with_indices(x, kernel, stride, padding, dilation, ceil_mode);
}

Tensor max_pool_backward(
    const Tensor& dy, const Tensor& x, const Tensor& indices, IntArrayRef kernel, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool ceil_mode) {
  return at::max_pool2d_with_indices_backward(dy, x, kernel, stride, padding, dilation, ceil_mode, indices);
}

Tensor max_pool_tangent(
    const Tensor& t, const Tensor& indices, IntArrayRef, IntArrayRef, IntArrayRef, IntArrayRef, bool) {
  const Tensor y = t.flatten(-2).gather(-1, indices.flatten(-2));
  return at::empty_like(indices, t.options()).copy_(y.view_symint(indices.sym_sizes()));
}

std::tuple<Tensor, Tensor> call_max_pool(const Tensor& x, const WindowPtr& w) {
  static const auto op = find_op<decltype(max_pool)>("gan_fast::max_pool");
  return op.call(x, w->kernel, w->stride, w->padding, w->dilation, w->ceil_mode);
}

Tensor call_max_pool_backward(const Tensor& dy, const Tensor& x, const Tensor& indices, const WindowPtr& w) {
  static const auto op = find_op<decltype(max_pool_backward)>("gan_fast::max_pool_backward");
  return op.call(dy, x, indices, w->kernel, w->stride, w->padding, w->dilation, w->ceil_mode);
}

Tensor call_max_pool_tangent(const Tensor& t, const Tensor& indices, const WindowPtr& w) {
  static const auto op = find_op<decltype(max_pool_tangent)>("gan_fast::max_pool_tangent");
  return op.call(t, indices, w->kernel, w->stride, w->padding, w->dilation, w->ceil_mode);
}

struct MaxPoolTangent : torch::autograd::Function<MaxPoolTangent> {
  static Tensor forward(AutogradContext* ctx, const Tensor& t, const Tensor& indices, const WindowPtr& w) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({t, indices});
    hold(ctx, "window", w);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_max_pool_tangent(t, indices, w);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (grads[0].defined()) {
      const variable_list saved = ctx->get_saved_variables();
      out[0] = call_max_pool_backward(grads[0], saved[0], saved[1], held<Window>(ctx, "window"));
    }
    return out;
  }
};

struct MaxPoolBackward : torch::autograd::Function<MaxPoolBackward> {
  static Tensor forward(
      AutogradContext* ctx, const Tensor& dy, const Like& x, const Tensor& indices, const WindowPtr& w) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({indices});
    hold(ctx, "window", w);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_max_pool_backward(dy, x.tensor, indices, w);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(4);
    if (grads[0].defined()) {
      out[0] = call_max_pool_tangent(grads[0], ctx->get_saved_variables()[0], held<Window>(ctx, "window"));
    }
    return out;
  }
};

struct MaxPool : torch::autograd::Function<MaxPool> {
  static variable_list forward(AutogradContext* ctx, const Tensor& x, const WindowPtr& w) {
    ctx->set_materialize_grads(false);
    hold(ctx, "window", w);
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, indices] = call_max_pool(x, w);
    ctx->save_for_backward({x, indices});
    ctx->mark_non_differentiable({indices});
    return {y, indices};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(2);
    if (grads[0].defined()) {
      const variable_list saved = ctx->get_saved_variables();
      out[0] = call_max_pool_backward(grads[0], saved[0], saved[1], held<Window>(ctx, "window"));
    }
    return out;
  }
};

std::tuple<Tensor, Tensor> max_pool_autograd(
    const Tensor& x, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
    bool ceil_mode) {
  const variable_list out = MaxPool::apply(x, window(kernel, stride, padding, dilation, ceil_mode));
  return {out[0], out[1]};
}

Tensor max_pool_backward_autograd(
    const Tensor& dy, const Tensor& x, const Tensor& indices, IntArrayRef kernel, IntArrayRef stride,
    IntArrayRef padding, IntArrayRef dilation, bool ceil_mode) {
  return MaxPoolBackward::apply(dy, Like{x}, indices, window(kernel, stride, padding, dilation, ceil_mode));
}

Tensor max_pool_tangent_autograd(
    const Tensor& t, const Tensor& indices, IntArrayRef kernel, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, bool ceil_mode) {
  return MaxPoolTangent::apply(t, indices, window(kernel, stride, padding, dilation, ceil_mode));
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "avg_pool(Tensor x, int[] kernel, int[] stride, int[] padding, bool ceil_mode, bool count_include_pad, "
      "int? divisor) -> Tensor");
  m.def(
      "avg_pool_backward(Tensor dy, Tensor x, int[] kernel, int[] stride, int[] padding, bool ceil_mode, "
      "bool count_include_pad, int? divisor) -> Tensor");
  m.def(
      "max_pool(Tensor x, int[] kernel, int[] stride, int[] padding, int[] dilation, bool ceil_mode) "
      "-> (Tensor y, Tensor indices)");
  m.def(
      "max_pool_backward(Tensor dy, Tensor x, Tensor indices, int[] kernel, int[] stride, int[] padding, "
      "int[] dilation, bool ceil_mode) -> Tensor");
  m.def(
      "max_pool_tangent(Tensor t, Tensor indices, int[] kernel, int[] stride, int[] padding, int[] dilation, "
      "bool ceil_mode) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CompositeExplicitAutograd, m) {
  m.impl("avg_pool", &avg_pool);
  m.impl("avg_pool_backward", &avg_pool_backward);
  m.impl("max_pool", &max_pool);
  m.impl("max_pool_backward", &max_pool_backward);
  m.impl("max_pool_tangent", &max_pool_tangent);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("avg_pool", &avg_pool_autograd);
  m.impl("avg_pool_backward", &avg_pool_backward_autograd);
  m.impl("max_pool", &max_pool_autograd);
  m.impl("max_pool_backward", &max_pool_backward_autograd);
  m.impl("max_pool_tangent", &max_pool_tangent_autograd);
}

}  // namespace gan_fast
