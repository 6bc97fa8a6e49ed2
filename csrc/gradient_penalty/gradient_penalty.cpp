// Penalties on the norms of per-sample gradients: schemas, autograd to any order, the CPU implementation.
//
//   gradient_penalty(g [N, ...], kind, center, weight) -> (penalty 0-dim, squared_norms [N])
//   gradient_penalty_backward(grad, g, squared_norms, kind, center, weight) -> grad a(n_i) g_i
//
// Norms are over everything but the first dimension, in float (double for double), whatever g's type.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/cpu/isa.h"
#include "common/host.h"
#include "gradient_penalty/gradient_penalty_host.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(
    gradient_penalty_block, void,
    (int storage, Mode mode, const Segment& row, long long begin, long long end, Sums& sums))

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Result = std::tuple<Tensor, Tensor>;

struct Numbers {
  int64_t kind;
  double center, weight;
};

Result call_forward(const Tensor& g, const Numbers& p) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::gradient_penalty", "")
                             .typed<Result(const Tensor&, int64_t, double, double)>();
  return op.call(g, p.kind, p.center, p.weight);
}

Tensor call_backward(const Tensor& grad, const Tensor& g, const Tensor& squared_norms, const Numbers& p) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::gradient_penalty_backward", "")
                             .typed<Tensor(const Tensor&, const Tensor&, const Tensor&, int64_t, double, double)>();
  return op.call(grad, g, squared_norms, p.kind, p.center, p.weight);
}

// ---- CPU

// Runs block(row, begin, end, chunk) over all rows in chunks of fixed size, in parallel where that pays.
template <class Block>
void for_row_chunks(const Rows& rows, int64_t chunks_a_row, int64_t chunk, const Block& block) {
  constexpr int64_t kGrainElements = 16384;  // below this waking a thread costs more than it saves
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, std::min(rows.inner, chunk)));
  at::parallel_for(0, rows.rows * chunks_a_row, grain, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const int64_t row = i / chunks_a_row, begin = (i % chunks_a_row) * chunk;
      block(row, begin, std::min(begin + chunk, rows.inner), i);
    }
  });
}

constexpr int64_t kChunk = 4096;

int64_t chunks_of(const Rows& rows) {
  return std::max<int64_t>(1, (rows.inner + kChunk - 1) / kChunk);
}

Segment segment_of(const Rows& rows, int64_t row) {
  Segment s{};
  s.x = static_cast<const char*>(rows.x.const_data_ptr()) + row * rows.stride * rows.x.element_size();
  s.inner = 1;
  s.n = rows.inner;
  return s;
}

template <class T>
double write_norms(
    const std::vector<double>& partial, int64_t chunks, const NormPenalty<double>& penalty, const Tensor& norms) {
  T* out = norms.mutable_data_ptr<T>();
  double sum = 0;
  for (int64_t row = 0; row < norms.numel(); ++row) {
    double n = 0;
    for (int64_t k = 0; k < chunks; ++k) {
      n += partial[row * chunks + k];
    }
    out[row] = static_cast<T>(n);
    sum += penalty.value(n);
  }
  return sum;
}

Result forward_cpu(const Tensor& g, int64_t kind, double center, double weight) {
  check_gradient_penalty(g, kind, center);
  const int storage = storage_code(g.scalar_type());
  const Rows rows = rows_of(g);
  const int64_t chunks = chunks_of(rows);
  const auto kernel = gradient_penalty_block_kernel();
  std::vector<double> partial(rows.rows * chunks);
  for_row_chunks(rows, chunks, kChunk, [&](int64_t row, int64_t begin, int64_t end, int64_t i) {
    Sums sums;
    kernel(storage, Mode::Reduce, segment_of(rows, row), begin, end, sums);
    partial[i] = sums.value;
  });
  const auto options = g.options().dtype(accumulate_type(g.scalar_type()));
  const double factor = weight / static_cast<double>(rows.rows);
  const NormPenalty<double> penalty(static_cast<int>(kind), center, factor);
  Tensor norms = at::empty({rows.rows}, options);
  double sum = norms.scalar_type() == at::kDouble ? write_norms<double>(partial, chunks, penalty, norms)
                                                  : write_norms<float>(partial, chunks, penalty, norms);
  if (rows.rows == 0) {
    sum = 0 * factor;  // the mean over no samples is NaN
  }
  return {at::scalar_tensor(sum, options), std::move(norms)};
}

Tensor backward_cpu(
    const Tensor& grad, const Tensor& g, const Tensor& squared_norms, int64_t kind, double center, double weight) {
  check_gradient_penalty(g, kind, center);
  check_gradient_penalty_backward(grad, g, squared_norms);
  const int storage = storage_code(g.scalar_type());
  const Rows rows = rows_of(g);
  const RowsTarget target = target_like(g, rows);
  const NormPenalty<double> penalty(static_cast<int>(kind), center, weight / static_cast<double>(rows.rows));
  const double up = read_scalar(grad);
  const Tensor norms = squared_norms.to(at::kDouble).contiguous();
  const double* n = norms.const_data_ptr<double>();
  char* out = static_cast<char*>(target.rows.mutable_data_ptr());
  const int64_t bytes = rows.inner * static_cast<int64_t>(g.element_size());
  const auto kernel = gradient_penalty_block_kernel();
  for_row_chunks(rows, chunks_of(rows), kChunk, [&](int64_t row, int64_t begin, int64_t end, int64_t) {
    Sums sums;
    Segment s = segment_of(rows, row);
    s.grad = out + row * bytes;
    s.factor = up * penalty.coefficient(n[row]);
    kernel(storage, Mode::Grad, s, begin, end, sums);
  });
  return target.finish();
}

// ---- Shapes for tracing

Result forward_meta(const Tensor& g, int64_t kind, double center, double) {
  check_gradient_penalty(g, kind, center);
  const auto options = g.options().dtype(accumulate_type(g.scalar_type()));
  return {at::empty({}, options), at::empty_symint({g.sym_size(0)}, options)};
}

Tensor backward_meta(const Tensor& grad, const Tensor& g, const Tensor& squared_norms, int64_t kind, double center, double) {
  check_gradient_penalty(g, kind, center);
  check_gradient_penalty_backward(grad, g, squared_norms);
  return at::empty_like(g);
}

// ---- Autograd

void save_numbers(AutogradContext* ctx, const Numbers& p) {
  ctx->saved_data["kind"] = p.kind;
  ctx->saved_data["center"] = p.center;
  ctx->saved_data["weight"] = p.weight;
}

Numbers numbers_of(AutogradContext* ctx) {
  return {ctx->saved_data["kind"].toInt(), ctx->saved_data["center"].toDouble(), ctx->saved_data["weight"].toDouble()};
}

// [N] as [N, 1, ..., 1]
Tensor a_sample(Tensor t, const Tensor& like) {
  for (int64_t d = 1; d < like.dim(); ++d) {
    t = t.unsqueeze(-1);
  }
  return t;
}

// <a_i, b_i> for every sample
Tensor row_products(const Tensor& a, const Tensor& b) {
  const Tensor product = a * b;
  return product.dim() > 1 ? product.flatten(1).sum(1) : product;
}

// a(n) and a'(n) as differentiable functions of n. n = 0 and samples that are cut off take constants, also in derivatives.
struct Coefficient {
  Tensor value, slope;  // slope is undefined where it is zero for every n
};

Coefficient coefficient_of(const Tensor& n, const Numbers& p) {
  const auto kind = static_cast<PenaltyKind>(p.kind);
  if (kind == PenaltyKind::Square) {
    return {divided_by_count(at::full_like(n, p.weight), n), {}};
  }
  const Tensor zero = n.detach().eq(0);
  const Tensor safe = n.masked_fill(zero, 1);
  const Tensor inverse = safe.rsqrt();
  Tensor value = divided_by_count(2 * p.weight * (1 - (p.center * inverse).masked_fill(zero, p.center > 0 ? 1 : 0)), n);
  Tensor slope = divided_by_count(p.weight * p.center * (inverse / safe).masked_fill(zero, 0), n);
  if (kind == PenaltyKind::OneSided) {
    const Tensor cut = n.detach().sqrt().le(p.center);
    value = value.masked_fill(cut, 0);
    slope = slope.masked_fill(cut, 0);
  }
  return {std::move(value), std::move(slope)};
}

// Linear in grad and g; the squared norms are an input of their own, whose derivative goes back to g through the forward.
struct GradientPenaltyBackward : torch::autograd::Function<GradientPenaltyBackward> {
  static Tensor forward(
      AutogradContext* ctx, const Tensor& grad, const Tensor& g, const Tensor& squared_norms, const Numbers& p) {
    ctx->set_materialize_grads(false);
    ctx->save_for_backward({grad, g, squared_norms});
    save_numbers(ctx, p);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, g, squared_norms, p);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    const Tensor& v = grads[0];
    variable_list out(4);
    if (!v.defined()) {
      return out;
    }
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &grad = saved[0], &g = saved[1], &n = saved[2];
    const Numbers p = numbers_of(ctx);
    if (ctx->needs_input_grad(1)) {
      out[1] = call_backward(grad, v.to(g.scalar_type()), n, p);
    }
    if (ctx->needs_input_grad(0) || ctx->needs_input_grad(2)) {
      const at::ScalarType type = n.scalar_type();
      const Tensor products = row_products(v.to(type), g.to(type));
      const Coefficient a = coefficient_of(n, p);
      if (ctx->needs_input_grad(0)) {
        out[0] = (a.value * products).sum().to(grad.scalar_type());
      }
      if (ctx->needs_input_grad(2) && a.slope.defined()) {
        out[2] = grad.to(type) * a.slope * products;
      }
    }
    return out;
  }
};

struct GradientPenalty : torch::autograd::Function<GradientPenalty> {
  static variable_list forward(AutogradContext* ctx, const Tensor& g, const Numbers& p) {
    ctx->set_materialize_grads(false);
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [penalty, norms] = call_forward(g, p);
    ctx->save_for_backward({g, norms});
    save_numbers(ctx, p);
    return {penalty, norms};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(2);
    if (!grads[0].defined() && !grads[1].defined()) {
      return out;
    }
    const variable_list saved = ctx->get_saved_variables();
    const Tensor &g = saved[0], &n = saved[1];
    if (grads[0].defined()) {
      out[0] = call_backward(grads[0], g, n, numbers_of(ctx));
    }
    if (grads[1].defined()) {
      const Tensor through_norms = (a_sample(2 * grads[1], g) * g.to(n.scalar_type())).to(g.scalar_type());
      out[0] = out[0].defined() ? out[0] + through_norms : through_norms;
    }
    return out;
  }
};

Result forward_autograd(const Tensor& g, int64_t kind, double center, double weight) {
  variable_list out = GradientPenalty::apply(g, Numbers{kind, center, weight});
  return {std::move(out[0]), std::move(out[1])};
}

Tensor backward_autograd(
    const Tensor& grad, const Tensor& g, const Tensor& squared_norms, int64_t kind, double center, double weight) {
  return GradientPenaltyBackward::apply(grad, g, squared_norms, Numbers{kind, center, weight});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def("gradient_penalty(Tensor g, int kind, float center, float weight) -> (Tensor penalty, Tensor squared_norms)");
  m.def(
      "gradient_penalty_backward(Tensor grad, Tensor g, Tensor squared_norms, int kind, float center, float weight) "
      "-> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("gradient_penalty", &forward_cpu);
  m.impl("gradient_penalty_backward", &backward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("gradient_penalty", &forward_meta);
  m.impl("gradient_penalty_backward", &backward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("gradient_penalty", &forward_autograd);
  m.impl("gradient_penalty_backward", &backward_autograd);
}

}  // namespace gan_fast
