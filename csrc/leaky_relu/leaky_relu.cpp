// Leaky ReLU, and ReLU as its slope 0: schemas, autograd to any order, in place or not.
//
//   leaky_relu(x, slope) -> y = max(x, 0) + slope min(x, 0)                    slope >= 0
//   leaky_relu_backward(dy, y, slope) -> dy where y > 0, slope dy elsewhere    linear in dy, its own adjoint
//
// The backward reads y alone, so it works in place. It has no derivative in y: aten's double backward sends zeros there,
// which travel up the forward graph and are convolved. Here there is no edge for them to travel along.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "common/bilinear.h"

namespace gan_fast {
namespace {

Tensor call_forward(const Tensor& x, double slope) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::leaky_relu", "")
                             .typed<Tensor(const Tensor&, double)>();
  return op.call(x, slope);
}

Tensor call_backward(const Tensor& dy, const Tensor& y, double slope) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::leaky_relu_backward", "")
                             .typed<Tensor(const Tensor&, const Tensor&, double)>();
  return op.call(dy, y, slope);
}

// relu is not leaky_relu of slope 0 at minus infinity, where 0 x would be NaN.
Tensor forward(const Tensor& x, double slope) {
  return slope == 0 ? at::relu(x) : at::leaky_relu(x, slope);
}

Tensor& forward_(Tensor& x, double slope) {
  return slope == 0 ? at::relu_(x) : at::leaky_relu_(x, slope);
}

Tensor backward(const Tensor& dy, const Tensor& y, double slope) {
  return slope == 0 ? at::threshold_backward(dy, y, 0) : at::leaky_relu_backward(dy, y, slope, true);
}

struct LeakyReluBackward : torch::autograd::Function<LeakyReluBackward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& dy, const Like& y, double slope) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({y.tensor.detach()});
    ctx->saved_data["slope"] = slope;
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(dy, y.tensor, slope);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (grads[0].defined()) {
      out[0] = call_backward(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["slope"].toDouble());
    }
    return out;
  }
};

variable_list input_gradient(AutogradContext* ctx, const variable_list& grads) {
  variable_list out(2);
  if (grads[0].defined()) {
    out[0] = call_backward(grads[0], ctx->get_saved_variables()[0], ctx->saved_data["slope"].toDouble());
  }
  return out;
}

struct LeakyRelu : torch::autograd::Function<LeakyRelu> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, double slope) {
    ctx->set_materialize_grads(false);
    ctx->saved_data["slope"] = slope;
    const at::AutoDispatchBelowADInplaceOrView guard;
    Tensor y = call_forward(x, slope);
    ctx->save_for_backward({y});
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return input_gradient(ctx, grads);
  }
};

struct LeakyReluInPlace : torch::autograd::Function<LeakyReluInPlace> {
  static Tensor forward(AutogradContext* ctx, Tensor x, double slope) {
    ctx->set_materialize_grads(false);
    ctx->saved_data["slope"] = slope;
    {
      const at::AutoDispatchBelowAutograd guard;  // the kernel for views and versions above the device's still runs
      forward_(x, slope);
    }
    ctx->mark_dirty({x});
    ctx->save_for_backward({x});
    return x;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    return input_gradient(ctx, grads);
  }
};

Tensor forward_autograd(const Tensor& x, double slope) {
  return LeakyRelu::apply(x, slope);
}

Tensor& forward_autograd_(Tensor& x, double slope) {
  LeakyReluInPlace::apply(x, slope);
  return x;
}

Tensor backward_autograd(const Tensor& dy, const Tensor& y, double slope) {
  return LeakyReluBackward::apply(dy, Like{y}, slope);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def("leaky_relu(Tensor x, float slope) -> Tensor");
  m.def("leaky_relu_(Tensor(a!) x, float slope) -> Tensor(a!)");
  m.def("leaky_relu_backward(Tensor dy, Tensor y, float slope) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CompositeExplicitAutograd, m) {
  m.impl("leaky_relu", &forward);
  m.impl("leaky_relu_", &forward_);
  m.impl("leaky_relu_backward", &backward);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("leaky_relu", &forward_autograd);
  m.impl("leaky_relu_", &forward_autograd_);
  m.impl("leaky_relu_backward", &backward_autograd);
}

}  // namespace gan_fast
