// softplus and log-sigmoid: schemas, autograd to any order, the CPU implementation.
//
//   softplus(input, beta, threshold) -> value of every element
//   softplus_backward(grad, input, beta, threshold) -> grad sigmoid(beta input), grad where beta input > threshold

#include "softplus/softplus.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/cpu/isa.h"
#include "common/host.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(
    softplus_block, void,
    (int storage, double beta, double threshold, Mode mode, const Segment& s, long long begin, long long end,
     Sums& sums))

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

Tensor call_forward(const Tensor& input, double beta, double threshold) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::softplus", "")
                             .typed<Tensor(const Tensor&, double, double)>();
  return op.call(input, beta, threshold);
}

Tensor call_backward(const Tensor& grad, const Tensor& input, double beta, double threshold) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::softplus_backward", "")
                             .typed<Tensor(const Tensor&, const Tensor&, double, double)>();
  return op.call(grad, input, beta, threshold);
}

Tensor run(const Tensor& input, const Tensor* grad, double beta, double threshold) {
  const int storage = storage_code(input.scalar_type());
  const Tensor x = dense(input);
  const Tensor c = grad != nullptr ? laid_out_as(*grad, x) : Tensor();
  Tensor out = empty_like_dense(x);
  Segment s{};
  s.x = x.const_data_ptr();
  s.c = grad != nullptr ? c.const_data_ptr() : nullptr;
  s.inner = 1;
  s.n = x.numel();
  s.factor = 1;
  s.value = s.grad = out.mutable_data_ptr();
  const auto kernel = softplus_block_kernel();
  const Mode mode = grad != nullptr ? Mode::Grad : Mode::Value;
  for_segments({s}, [&](size_t, int64_t begin, int64_t end, Sums& sums) {
    kernel(storage, beta, threshold, mode, s, begin, end, sums);
  });
  return out;
}

Tensor forward_cpu(const Tensor& input, double beta, double threshold) {
  return run(input, nullptr, beta, threshold);
}

Tensor backward_cpu(const Tensor& grad, const Tensor& input, double beta, double threshold) {
  return run(input, &grad, beta, threshold);
}

Tensor forward_meta(const Tensor& input, double, double) {
  storage_code(input.scalar_type());
  return at::empty_like(input);
}

Tensor backward_meta(const Tensor&, const Tensor& input, double, double) {
  return at::empty_like(input);
}

struct SoftplusBackward : torch::autograd::Function<SoftplusBackward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& grad, const Tensor& input, double beta, double threshold) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({grad, input});
    ctx->saved_data["beta"] = beta;
    ctx->saved_data["threshold"] = threshold;
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, input, beta, threshold);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& v = grads[0];
    variable_list out(4);
    if (!v.defined()) {
      return out;
    }
    const variable_list saved = ctx->get_saved_variables();
    const double beta = ctx->saved_data["beta"].toDouble(), threshold = ctx->saved_data["threshold"].toDouble();
    if (ctx->needs_input_grad(0)) {
      out[0] = call_backward(v, saved[1], beta, threshold);
    }
    if (ctx->needs_input_grad(1)) {
      const Tensor u = saved[1].to(accumulate_type(saved[1].scalar_type())) * beta;
      const Tensor curvature = at::sigmoid(u) * at::sigmoid(-u) * beta;
      out[1] = (v * saved[0] * curvature.masked_fill(u.gt(threshold), 0)).to(saved[1].scalar_type());
    }
    return out;
  }
};

struct SoftplusForward : torch::autograd::Function<SoftplusForward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& input, double beta, double threshold) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({input});
    ctx->saved_data["beta"] = beta;
    ctx->saved_data["threshold"] = threshold;
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(input, beta, threshold);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (grads[0].defined()) {
      const double beta = ctx->saved_data["beta"].toDouble(), threshold = ctx->saved_data["threshold"].toDouble();
      out[0] = call_backward(grads[0], ctx->get_saved_variables()[0], beta, threshold);
    }
    return out;
  }
};

Tensor forward_autograd(const Tensor& input, double beta, double threshold) {
  return SoftplusForward::apply(input, beta, threshold);
}

Tensor backward_autograd(const Tensor& grad, const Tensor& input, double beta, double threshold) {
  return SoftplusBackward::apply(grad, input, beta, threshold);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def("softplus(Tensor input, float beta, float threshold) -> Tensor");
  m.def("softplus_backward(Tensor grad, Tensor input, float beta, float threshold) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("softplus", &forward_cpu);
  m.impl("softplus_backward", &backward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("softplus", &forward_meta);
  m.impl("softplus_backward", &backward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("softplus", &forward_autograd);
  m.impl("softplus_backward", &backward_autograd);
}

}  // namespace gan_fast
