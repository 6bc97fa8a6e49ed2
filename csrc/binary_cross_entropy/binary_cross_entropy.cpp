// Binary cross entropy of logits or of probabilities: schemas, checks, autograd, the CPU implementation.
//
//   binary_cross_entropy(input, target, weight?, pos_weight?, logits, reduction, with_gradient) -> (loss, d loss/d input)
//   binary_cross_entropy_backward(grad, input, ...) -> gradient for input; itself differentiable
//
// weight and pos_weight arrive with the shape of the input and are constants, as they are in PyTorch. The gradient for the
// target, which few programs want, and all second derivatives are plain ATen formulas, so that any further order follows.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "binary_cross_entropy/binary_cross_entropy_host.h"
#include "common/cpu/isa.h"
#include "common/host.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(
    binary_cross_entropy_block, void,
    (int storage, bool logits, Mode mode, const Segment& s, long long begin, long long end, Sums& sums))

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Result = std::tuple<Tensor, Tensor>;

Result call_forward(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight, bool logits,
    int64_t reduction, bool with_gradient) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gan_fast::binary_cross_entropy", "")
          .typed<Result(const Tensor&, const Tensor&, const Optional&, const Optional&, bool, int64_t, bool)>();
  return op.call(input, target, weight, pos_weight, logits, reduction, with_gradient);
}

Tensor call_backward(
    const Tensor& grad, const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight,
    bool logits, int64_t reduction) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::binary_cross_entropy_backward", "")
                             .typed<Tensor(
                                 const Tensor&, const Tensor&, const Tensor&, const Optional&, const Optional&, bool,
                                 int64_t)>();
  return op.call(grad, input, target, weight, pos_weight, logits, reduction);
}

}  // namespace

void check_bce(const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight) {
  storage_code(input.scalar_type());
  TORCH_CHECK_VALUE(
      target.sym_sizes() == input.sym_sizes(), "Target size (", target.sym_sizes(), ") must be the same as input size (",
      input.sym_sizes(), ")");
  const Optional others[] = {target, weight, pos_weight};
  const char* const names[] = {"target", "weight", "pos_weight"};
  for (int i = 0; i < 3; ++i) {
    if (!others[i].has_value()) {
      continue;
    }
    TORCH_CHECK(
        others[i]->scalar_type() == input.scalar_type(), "Found dtype ", others[i]->scalar_type(),
        " but expected ", input.scalar_type());
    TORCH_CHECK(
        others[i]->device() == input.device(), names[i], " is on ", others[i]->device(), " but the input is on ",
        input.device(), "; move it there");
    TORCH_CHECK_VALUE(
        others[i]->sym_sizes() == input.sym_sizes(), names[i], " has shape ", others[i]->sym_sizes(),
        " but the input has ", input.sym_sizes());
  }
}

BcePlan plan_bce(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight,
    const Tensor* cotangent) {
  BcePlan p;
  p.x = dense(input);
  const auto pointer = [&](const Tensor& t) { return p.kept.emplace_back(laid_out_as(t, p.x)).const_data_ptr(); };
  p.segment.x = p.x.const_data_ptr();
  p.segment.y = pointer(target);
  p.segment.w = weight.has_value() ? pointer(weight->to(accumulate_type(p.x.scalar_type()))) : nullptr;
  p.segment.p = pos_weight.has_value() ? pointer(*pos_weight) : nullptr;
  p.segment.c = cotangent != nullptr ? pointer(*cotangent) : nullptr;
  p.segment.inner = 1;
  p.segment.n = p.x.numel();
  return p;
}

namespace {

// ---- CPU

Sums run(const BcePlan& p, bool logits, Mode mode) {
  const auto kernel = binary_cross_entropy_block_kernel();
  const int storage = storage_code(p.x.scalar_type());
  const Sums sums = for_segments({p.segment}, [&](size_t, int64_t begin, int64_t end, Sums& s) {
    kernel(storage, logits, mode, p.segment, begin, end, s);
  })[0];
  if (sums.invalid != 0) {
    const bool input = at::logical_and(p.x >= 0, p.x <= 1).all().item<bool>();
    TORCH_CHECK(false, "all elements of ", input ? "target" : "input", " should be between 0 and 1");
  }
  return sums;
}

Result forward_cpu(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight, bool logits,
    int64_t reduction, bool with_gradient) {
  check_bce(input, target, weight, pos_weight);
  BcePlan p = plan_bce(input, target, weight, pos_weight, nullptr);
  const double n = static_cast<double>(p.segment.n);
  if (reduction == None) {
    Tensor value = empty_like_dense(p.x);
    p.segment.value = value.mutable_data_ptr();
    run(p, logits, Mode::Value);
    return {value, at::empty({0}, input.options())};
  }
  Tensor gradient = with_gradient ? empty_like_dense(p.x) : at::detail::empty_cpu({0}, input.scalar_type());
  p.segment.factor = reduction == Mean ? 1 / n : 1;
  p.segment.grad = gradient.mutable_data_ptr();
  const Sums sums = run(p, logits, with_gradient ? Mode::ReduceGrad : Mode::Reduce);
  return {at::scalar_tensor(reduction == Mean ? sums.value / n : sums.value, input.options()), gradient};
}

Tensor backward_cpu(
    const Tensor& grad, const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight,
    bool logits, int64_t reduction) {
  check_bce(input, target, weight, pos_weight);
  BcePlan p = plan_bce(input, target, weight, pos_weight, reduction == None ? &grad : nullptr);
  Tensor gradient = empty_like_dense(p.x);
  p.segment.grad = gradient.mutable_data_ptr();
  p.segment.factor = reduction == None ? 1
      : reduction == Mean              ? read_scalar(grad) / static_cast<double>(p.segment.n)
                                       : read_scalar(grad);
  run(p, logits, Mode::Grad);
  return gradient;
}

// ---- Meta

Result forward_meta(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight, bool,
    int64_t reduction, bool with_gradient) {
  check_bce(input, target, weight, pos_weight);
  Tensor gradient = with_gradient && reduction != None ? at::empty_like(input) : at::empty({0}, input.options());
  return {reduction == None ? at::empty_like(input) : at::empty({}, input.options()), gradient};
}

Tensor backward_meta(
    const Tensor&, const Tensor& input, const Tensor&, const Optional&, const Optional&, bool, int64_t) {
  return at::empty_like(input);
}

// ---- Autograd

// The loss and its derivatives in ATen, differentiable; q is undefined for a weight of 1.
struct Formula {
  Tensor x, t, q;
  bool logits;

  Tensor positive() const {
    return q.defined() ? q * t : t;
  }
  Tensor spread() const {
    return ((1 - x) * x).clamp_min(kFloor);
  }
  Tensor d_x() const {
    return logits ? (1 - t) * at::sigmoid(x) - positive() * at::sigmoid(-x) : (x - t) / spread();
  }
  Tensor d_t() const {
    if (logits) {
      const Tensor sp = -at::log_sigmoid(x);
      return q.defined() ? (q - 1) * sp - x : -x;
    }
    return (-x).log1p().clamp_min(-100) - x.log().clamp_min(-100);
  }
  Tensor d_xx() const {
    if (logits) {
      return ((1 - t) + positive()) * at::sigmoid(x) * at::sigmoid(-x);
    }
    const Tensor v = spread();
    // inside the clamp the denominator is a constant
    return at::where(((1 - x) * x).le(kFloor), 1 / v, (x * x - 2 * x * t + t) / (v * v));
  }
  Tensor d_xt() const {
    if (logits) {
      return -at::sigmoid(x) - (q.defined() ? q * at::sigmoid(-x) : at::sigmoid(-x));
    }
    return -1 / spread();
  }
};

// The inputs of a node, saved and restored, and which gradients the engine wants.
struct Inputs {
  Tensor input, target, weight, pos_weight;
  bool logits = false;
  int64_t reduction = Mean;

  static void save(
      AutogradContext* ctx, const Tensor& input, const Tensor& target, const Optional& weight,
      const Optional& pos_weight, bool logits, int64_t reduction, const Tensor& more) {
    ctx->save_for_backward({input, target, weight.value_or(Tensor()), pos_weight.value_or(Tensor()), more});
    ctx->saved_data["logits"] = logits;
    ctx->saved_data["reduction"] = reduction;
  }
  explicit Inputs(AutogradContext* ctx, Tensor* more) {
    variable_list s = ctx->get_saved_variables();
    input = s[0], target = s[1], weight = s[2], pos_weight = s[3], *more = s[4];
    logits = ctx->saved_data["logits"].toBool();
    reduction = ctx->saved_data["reduction"].toInt();
  }
  Formula formula() const {
    const at::ScalarType type = accumulate_type(input.scalar_type());
    return {input.to(type), target.to(type), pos_weight.defined() ? pos_weight.to(type) : pos_weight, logits};
  }
  Optional optional(const Tensor& t) const {
    return t.defined() ? Optional(t) : std::nullopt;
  }
  // the incoming gradient of every element
  Tensor each(const Tensor& g) const {
    const Tensor up = g.to(accumulate_type(input.scalar_type()));
    return reduction == Mean ? divided_by_count(up, input) : up;
  }
  Tensor weighted(const Tensor& v) const {
    return weight.defined() ? v * weight.to(v.scalar_type()) : v;
  }
  Tensor back(const Tensor& v) const {
    return v.expand_as(input).to(input.scalar_type());
  }
};

// The gradient for the input that the forward has written, where it is exact for the incoming gradient g; undefined
// otherwise. It is handed out once, for then it belongs to whoever asked for it.
const char* const kAhead = "ahead";

Tensor take_ahead(AutogradContext* ctx, const Tensor& g) {
  const auto found = ctx->saved_data.find(kAhead);
  if (found == ctx->saved_data.end() || at::GradMode::is_enabled()) {
    return {};
  }
  const Tensor ahead = found->second.toTensor();
  if (!is_plain_cpu(g)) {
    return accumulate_type(ahead.scalar_type()) == ahead.scalar_type() ? ahead * g : Tensor();
  }
  if (read_scalar(g) != 1.0) {
    return {};
  }
  ctx->saved_data.erase(found);
  return ahead;
}

struct BceBackward : torch::autograd::Function<BceBackward> {
  static Tensor forward(
      AutogradContext* ctx, const Tensor& grad, const Tensor& input, const Tensor& target, const Optional& weight,
      const Optional& pos_weight, bool logits, int64_t reduction) {
    ctx->set_materialize_grads(false);
    Inputs::save(ctx, input, target, weight, pos_weight, logits, reduction, grad);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grad, input, target, weight, pos_weight, logits, reduction);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(7);
    if (!grads[0].defined()) {
      return out;
    }
    Tensor g;
    const Inputs in(ctx, &g);
    const Formula f = in.formula();
    const Tensor v = grads[0].to(f.x.scalar_type());
    const Tensor both = in.weighted(in.each(g) * v);
    if (ctx->needs_input_grad(0)) {
      const Tensor t = in.weighted(v) * f.d_x();
      const Tensor sum = in.reduction == None ? t : in.reduction == Mean ? t.mean() : t.sum();
      out[0] = sum.to(g.scalar_type());
    }
    out[1] = ctx->needs_input_grad(1) ? in.back(both * f.d_xx()) : Tensor();
    out[2] = ctx->needs_input_grad(2) ? in.back(both * f.d_xt()) : Tensor();
    return out;
  }
};

struct Bce : torch::autograd::Function<Bce> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& input, const Tensor& target, const Optional& weight,
      const Optional& pos_weight, bool logits, int64_t reduction) {
    ctx->set_materialize_grads(false);
    at::AutoDispatchBelowADInplaceOrView guard;
    const bool ahead = input.device().is_cpu() && reduction != None && input.requires_grad();
    auto [loss, gradient] = call_forward(input, target, weight, pos_weight, logits, reduction, ahead);
    Inputs::save(ctx, input, target, weight, pos_weight, logits, reduction, {});
    if (ahead) {
      ctx->saved_data[kAhead] = gradient;
    }
    return {loss};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(6);
    const Tensor& g = grads[0];
    if (!g.defined()) {
      return out;
    }
    if (ctx->needs_input_grad(0)) {
      out[0] = take_ahead(ctx, g);
      if (out[0].defined() && !ctx->needs_input_grad(1)) {
        return out;
      }
    }
    Tensor none;
    const Inputs in(ctx, &none);
    if (ctx->needs_input_grad(0) && !out[0].defined()) {
      out[0] = call_backward(
          g, in.input, in.target, in.optional(in.weight), in.optional(in.pos_weight), in.logits, in.reduction);
    }
    if (ctx->needs_input_grad(1)) {
      out[1] = in.back(in.weighted(in.each(g)) * in.formula().d_t());
    }
    return out;
  }
};

Result forward_autograd(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight, bool logits,
    int64_t reduction, bool with_gradient) {
  check_bce(input, target, weight, pos_weight);
  for (const auto& [name, w] : {std::pair("weight", &weight), std::pair("pos_weight", &pos_weight)}) {
    TORCH_CHECK(
        !w->has_value() || !(*w)->requires_grad(), "The function '", logits ? "binary_cross_entropy_with_logits" : "binary_cross_entropy",
        "' is not differentiable with respect to argument '", name, "'. This input cannot have requires_grad True.");
  }
  if (with_gradient || !at::GradMode::is_enabled() || !(input.requires_grad() || target.requires_grad())) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(input, target, weight, pos_weight, logits, reduction, with_gradient);
  }
  Tensor loss = Bce::apply(input, target, weight, pos_weight, logits, reduction)[0];
  return {loss, at::empty({0}, input.options())};
}

Tensor backward_autograd(
    const Tensor& grad, const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight,
    bool logits, int64_t reduction) {
  return BceBackward::apply(grad, input, target, weight, pos_weight, logits, reduction);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "binary_cross_entropy(Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, bool logits, int reduction, "
      "bool with_gradient) -> (Tensor, Tensor)");
  m.def(
      "binary_cross_entropy_backward(Tensor grad, Tensor input, Tensor target, Tensor? weight, Tensor? pos_weight, "
      "bool logits, int reduction) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("binary_cross_entropy", &forward_cpu);
  m.impl("binary_cross_entropy_backward", &backward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("binary_cross_entropy", &forward_meta);
  m.impl("binary_cross_entropy_backward", &backward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("binary_cross_entropy", &forward_autograd);
  m.impl("binary_cross_entropy_backward", &backward_autograd);
}

}  // namespace gan_fast
