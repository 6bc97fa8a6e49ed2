// sum_k mean |a_k - b_k| over a list of pairs: schemas, checks, autograd, the CPU implementation.
//
//   l1_distance(a, b, with_gradients) -> (distance 0-dim, its gradients for a or nothing)
//   l1_distance_backward(grad, a, b)  -> gradients for a; those for b are their negatives. Linear in grad.

#include "l1_distance/l1_distance_host.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/cpu/isa.h"
#include "common/host.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(
    l1_distance_block, void,
    (int storage, Mode mode, const Segment& s, long long begin, long long end, Sums& sums))

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Result = std::tuple<Tensor, std::vector<Tensor>>;

Result call_forward(TensorList a, TensorList b, bool with_gradients) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::l1_distance", "")
                             .typed<Result(TensorList, TensorList, bool)>();
  return op.call(a, b, with_gradients);
}

std::vector<Tensor> call_backward(const Tensor& grad, TensorList a, TensorList b) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::l1_distance_backward", "")
                             .typed<std::vector<Tensor>(const Tensor&, TensorList, TensorList)>();
  return op.call(grad, a, b);
}

}  // namespace

void check_l1(TensorList a, TensorList b) {
  TORCH_CHECK_VALUE(
      a.size() == b.size() && !a.empty(), "an L1 distance got ", a.size(), " and ", b.size(),
      " tensors; expected as many of each, and at least one");
  for (size_t k = 0; k < a.size(); ++k) {
    storage_code(a[k].scalar_type());
    TORCH_CHECK_VALUE(
        a[k].sym_sizes() == b[k].sym_sizes(), "tensors ", k, " of an L1 distance have shapes ", a[k].sym_sizes(), " and ",
        b[k].sym_sizes(), "; they must be equal");
    TORCH_CHECK_VALUE(
        a[k].scalar_type() == b[k].scalar_type() && a[k].scalar_type() == a[0].scalar_type(), "tensors ", k,
        " of an L1 distance are ", name_of(a[k].scalar_type()), " and ", name_of(b[k].scalar_type()), ", the first is ",
        name_of(a[0].scalar_type()), "; convert them to one dtype");
    TORCH_CHECK_VALUE(
        a[k].device() == b[k].device() && a[k].device() == a[0].device(), "tensors ", k, " of an L1 distance are on ",
        a[k].device(), " and ", b[k].device(), "; move them to one device");
  }
}

L1Plan plan_l1(TensorList a, TensorList b, bool with_gradients, double factor) {
  L1Plan plan;
  plan.kept.reserve(2 * a.size());
  for (size_t k = 0; k < a.size(); ++k) {
    const Tensor& x = plan.kept.emplace_back(dense(a[k]));
    const Tensor& y = plan.kept.emplace_back(laid_out_as(b[k], x));
    Segment s{};
    s.x = x.const_data_ptr();
    s.y = y.const_data_ptr();
    s.inner = 1;
    s.n = x.numel();
    s.factor = factor / static_cast<double>(s.n);
    if (with_gradients) {
      s.grad = plan.gradients.emplace_back(at::empty_like(x)).mutable_data_ptr();
    }
    plan.segments.push_back(s);
  }
  return plan;
}

namespace {

double run(TensorList a, TensorList b, Mode mode, double factor, std::vector<Tensor>* gradients) {
  const L1Plan plan = plan_l1(a, b, gradients != nullptr, factor);
  const std::vector<Segment>& segments = plan.segments;
  const int storage = storage_code(a[0].scalar_type());
  const auto kernel = l1_distance_block_kernel();
  const auto sums = for_segments(segments, [&](size_t k, int64_t begin, int64_t end, Sums& out) {
    kernel(storage, mode, segments[k], begin, end, out);
  });
  double distance = 0;
  for (size_t k = 0; k < sums.size(); ++k) {
    distance += sums[k].value / static_cast<double>(segments[k].n);
  }
  if (gradients != nullptr) {
    *gradients = plan.gradients;
  }
  return distance;
}

Result forward_cpu(TensorList a, TensorList b, bool with_gradients) {
  check_l1(a, b);
  std::vector<Tensor> gradients;
  const double distance =
      run(a, b, with_gradients ? Mode::ReduceGrad : Mode::Reduce, 1, with_gradients ? &gradients : nullptr);
  return {at::scalar_tensor(distance, a[0].options().dtype(accumulate_type(a[0].scalar_type()))), std::move(gradients)};
}

std::vector<Tensor> backward_cpu(const Tensor& grad, TensorList a, TensorList b) {
  check_l1(a, b);
  std::vector<Tensor> gradients;
  run(a, b, Mode::Grad, read_scalar(grad), &gradients);
  return gradients;
}

std::vector<Tensor> like(TensorList a) {
  std::vector<Tensor> out;
  for (const Tensor& x : a) {
    out.push_back(at::empty_like(x));
  }
  return out;
}

Result forward_meta(TensorList a, TensorList b, bool with_gradients) {
  check_l1(a, b);
  return {
      at::empty({}, a[0].options().dtype(accumulate_type(a[0].scalar_type()))),
      with_gradients ? like(a) : std::vector<Tensor>()};
}

std::vector<Tensor> backward_meta(const Tensor&, TensorList a, TensorList) {
  return like(a);
}

variable_list for_both(const std::vector<Tensor>& for_a, const AutogradContext* ctx, size_t first) {
  const size_t n = for_a.size();
  variable_list out(2 * n);
  for (size_t k = 0; k < n; ++k) {
    out[k] = for_a[k];
    if (ctx->needs_input_grad(first + n + k)) {
      out[n + k] = -for_a[k];
    }
  }
  return out;
}

// Linear in grad, with a derivative for a and b that is zero almost everywhere.
struct L1Backward : torch::autograd::Function<L1Backward> {
  static variable_list forward(AutogradContext* ctx, const Tensor& grad, TensorList a, TensorList b) {
    variable_list saved(a.vec());
    saved.insert(saved.end(), b.begin(), b.end());
    ctx->save_for_backward(std::move(saved));
    ctx->set_materialize_grads(false);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, a, b);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& v) {
    const variable_list saved = ctx->get_saved_variables();
    const size_t n = saved.size() / 2;
    variable_list out(1 + 2 * n);
    for (size_t k = 0; k < n; ++k) {
      if (v[k].defined()) {
        const at::ScalarType type = accumulate_type(saved[k].scalar_type());
        const Tensor sign = at::sign(saved[k].to(type) - saved[n + k].to(type));
        const Tensor term = (v[k].to(type) * sign).mean();
        out[0] = out[0].defined() ? out[0] + term : term;
      }
    }
    return out;
  }
};

struct L1 : torch::autograd::Function<L1> {
  static variable_list forward(AutogradContext* ctx, TensorList a, TensorList b) {
    ctx->set_materialize_grads(false);
    const bool ahead = a[0].device().is_cpu();
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [distance, gradients] = call_forward(a, b, ahead);
    variable_list saved(a.vec());
    saved.insert(saved.end(), b.begin(), b.end());
    ctx->save_for_backward(std::move(saved));
    ctx->saved_data["pairs"] = static_cast<int64_t>(a.size());
    if (ahead) {
      ctx->saved_data["ahead"] = std::move(gradients);
    }
    return {distance};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const size_t n = ctx->saved_data["pairs"].toInt();
    const Tensor& g = grads[0];
    if (!g.defined()) {
      return variable_list(2 * n);
    }
    // gradients written in the forward are handed out once, for then they belong to whoever asked for them
    std::vector<Tensor> for_a;
    const auto found = ctx->saved_data.find("ahead");
    if (found != ctx->saved_data.end() && !at::GradMode::is_enabled()) {
      if (!is_plain_cpu(g)) {
        for (const Tensor& s : found->second.toTensorVector()) {
          for_a.push_back((s.to(g.scalar_type()) * g).to(s.scalar_type()));
        }
      } else if (read_scalar(g) == 1.0) {
        for_a = found->second.toTensorVector();
        ctx->saved_data.erase(found);
      }
    }
    if (for_a.empty()) {
      const variable_list saved = ctx->get_saved_variables();
      for_a = call_backward(g, TensorList(saved).slice(0, n), TensorList(saved).slice(n, n));
    }
    return for_both(for_a, ctx, 0);
  }
};

Result forward_autograd(TensorList a, TensorList b, bool with_gradients) {
  check_l1(a, b);
  const auto needs = [](const Tensor& t) { return t.requires_grad(); };
  if (with_gradients || !at::GradMode::is_enabled() ||
      !(std::any_of(a.begin(), a.end(), needs) || std::any_of(b.begin(), b.end(), needs))) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(a, b, with_gradients);
  }
  return {L1::apply(a, b)[0], {}};
}

std::vector<Tensor> backward_autograd(const Tensor& grad, TensorList a, TensorList b) {
  return L1Backward::apply(grad, a, b);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def("l1_distance(Tensor[] a, Tensor[] b, bool with_gradients) -> (Tensor, Tensor[])");
  m.def("l1_distance_backward(Tensor grad, Tensor[] a, Tensor[] b) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("l1_distance", &forward_cpu);
  m.impl("l1_distance_backward", &backward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("l1_distance", &forward_meta);
  m.impl("l1_distance_backward", &backward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("l1_distance", &forward_autograd);
  m.impl("l1_distance_backward", &backward_autograd);
}

}  // namespace gan_fast
