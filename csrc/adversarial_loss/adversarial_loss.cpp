// Adversarial losses over lists of logits: schemas, checks, autograd to second order, the CPU implementation.
//
//   adversarial_loss(real, fake, ...)           -> (loss 0-dim, stats [5] or [0], gradients or nothing); with
//                                                  gradients it builds no graph
//   adversarial_terms(real, fake, ...)          -> the unreduced terms
//   adversarial_loss_backward(grads, real, ...) -> d loss / d logits, real's then fake's; itself differentiable
//
// On the CPU the forward writes the gradient of the loss while it has the logits in registers, and the first backward
// whose incoming gradient is 1, as it is in a training loop, hands it out: half the passes over the logits. Every other
// backward, and second order, is computed from the logits.

#include "adversarial_loss/adversarial_loss_host.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/autocast_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>

#include "common/cpu/isa.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(
    adversarial_block, void,
    (int storage, Kind kind, Mode mode, bool full, const Segment& s, const TermNumbers& numbers, bool stats,
     long long begin, long long end, Sums& sums))

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

using Result = AdversarialResult;
using Numbers = at::ArrayRef<double>;

}  // namespace

Result call_loss(const AdversarialArgs& a, bool with_stats, bool with_gradients) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::adversarial_loss", "")
                             .typed<Result(
                                 TensorList, TensorList, TensorList, TensorList, int64_t, Numbers, Numbers, int64_t,
                                 bool, bool)>();
  const double rt[] = {a.real_term.p, a.real_term.scale, a.real_term.slope};
  const double ft[] = {a.fake_term.p, a.fake_term.scale, a.fake_term.slope};
  return op.call(
      a.real, a.fake, a.real_weight, a.fake_weight, static_cast<int64_t>(a.kind), rt, ft, a.reduction, with_stats,
      with_gradients);
}

namespace {

std::vector<Tensor> call_terms(const AdversarialArgs& a) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gan_fast::adversarial_terms", "")
          .typed<std::vector<Tensor>(TensorList, TensorList, TensorList, TensorList, int64_t, Numbers, Numbers)>();
  const double rt[] = {a.real_term.p, a.real_term.scale, a.real_term.slope};
  const double ft[] = {a.fake_term.p, a.fake_term.scale, a.fake_term.slope};
  return op.call(a.real, a.fake, a.real_weight, a.fake_weight, static_cast<int64_t>(a.kind), rt, ft);
}

std::vector<Tensor> call_backward(TensorList grads, const AdversarialArgs& a) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::adversarial_loss_backward", "")
                             .typed<std::vector<Tensor>(
                                 TensorList, TensorList, TensorList, TensorList, TensorList, int64_t, Numbers, Numbers,
                                 int64_t)>();
  const double rt[] = {a.real_term.p, a.real_term.scale, a.real_term.slope};
  const double ft[] = {a.fake_term.p, a.fake_term.scale, a.fake_term.slope};
  return op.call(
      grads, a.real, a.fake, a.real_weight, a.fake_weight, static_cast<int64_t>(a.kind), rt, ft, a.reduction);
}

// ---- CPU

std::vector<Sums> run_cpu(const AdversarialArgs& a, const AdversarialPlan& plan, Mode mode, Kind kind, bool stats, bool full) {
  const auto kernel = adversarial_block_kernel();
  const int storage = storage_code(a.first().scalar_type());
  return for_segments(plan.segments, [&](size_t k, int64_t begin, int64_t end, Sums& sums) {
    const Segment& s = plan.segments[k];
    kernel(
        storage, kind, mode, full || stats || s.w != nullptr || s.c != nullptr, s, plan.numbers[k], stats, begin, end,
        sums);
  });
}

// Relativistic average: each side's shift is the mean of the other's logits.
void set_shifts(const AdversarialArgs& a, AdversarialPlan& plan) {
  const auto sums = run_cpu(a, plan, Mode::Reduce, Kind::Linear, true, true);
  const size_t n = a.real.size();
  for (size_t k = 0; k < n; ++k) {
    plan.numbers[n + k].shift = sums[k].x / static_cast<double>(plan.segments[k].n);
    plan.numbers[k].shift = sums[n + k].x / static_cast<double>(plan.segments[n + k].n);
  }
}

// ... and each side's logits also move the other side's terms, through their mean.
void set_offsets(const AdversarialArgs& a, AdversarialPlan& plan, const std::vector<Sums>& sums) {
  const size_t n = a.real.size();
  for (size_t k = 0; k < n; ++k) {
    Segment &r = plan.segments[k], &f = plan.segments[n + k];
    r.offset = -sums[n + k].derivative * f.factor / static_cast<double>(r.n);
    f.offset = -sums[k].derivative * r.factor / static_cast<double>(f.n);
  }
}

Tensor scalar_tensor(double value, const Tensor& like) {
  Tensor out = at::detail::empty_cpu({}, accumulate_type(like.scalar_type()));
  if (out.scalar_type() == at::kDouble) {
    *out.mutable_data_ptr<double>() = value;
  } else {
    *out.mutable_data_ptr<float>() = static_cast<float>(value);
  }
  return out;
}

Tensor stats_tensor(const AdversarialArgs& a, const std::vector<Sums>& sums, double loss) {
  double x[2] = {0, 0}, sign[2] = {0, 0}, count[2] = {0, 0};
  const size_t n = a.real.size();
  for (size_t k = 0; k < sums.size(); ++k) {
    const int side = k < n ? 0 : 1;
    x[side] += sums[k].x;
    sign[side] += sums[k].x_sign;
    if (a.paired()) {
      x[1] += sums[k].y;
      sign[1] += sums[k].y_sign;
    }
  }
  for (const Tensor& t : a.real) {
    count[0] += static_cast<double>(t.numel());
  }
  for (const Tensor& t : a.fake) {
    count[1] += static_cast<double>(t.numel());
  }
  Tensor out = at::detail::empty_cpu({5}, accumulate_type(a.first().scalar_type()));
  const double values[] = {loss, x[0] / count[0], x[1] / count[1], sign[0] / count[0], sign[1] / count[1]};
  for (int i = 0; i < 5; ++i) {
    if (out.scalar_type() == at::kDouble) {
      out.mutable_data_ptr<double>()[i] = values[i];
    } else {
      out.mutable_data_ptr<float>()[i] = static_cast<float>(values[i]);
    }
  }
  return out;
}

Result adversarial_loss_cpu(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term, int64_t reduction, bool with_stats, bool with_gradients) {
  const AdversarialArgs a =
      check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction);
  AdversarialPlan plan = plan_adversarial(a, with_gradients, false, {}, 1.0);
  std::vector<Sums> sums;
  if (a.averaged()) {
    set_shifts(a, plan);
    sums = run_cpu(a, plan, Mode::Reduce, a.kind, with_stats, true);
    if (with_gradients) {
      set_offsets(a, plan, sums);
      run_cpu(a, plan, Mode::Grad, a.kind, false, true);
    }
  } else {
    sums = run_cpu(a, plan, with_gradients ? Mode::ReduceGrad : Mode::Reduce, a.kind, with_stats, false);
  }
  double loss = 0;
  for (size_t k = 0; k < sums.size(); ++k) {
    loss += reduction == Mean ? sums[k].value / static_cast<double>(plan.segments[k].n) : sums[k].value;
  }
  Tensor stats = with_stats ? stats_tensor(a, sums, loss)
                            : at::detail::empty_cpu({0}, accumulate_type(a.first().scalar_type()));
  return {scalar_tensor(loss, a.first()), std::move(stats), std::move(plan.gradients)};
}

std::vector<Tensor> adversarial_terms_cpu(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term) {
  const AdversarialArgs a = check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, None);
  AdversarialPlan plan = plan_adversarial(a, false, true, {}, 1.0);
  if (a.averaged()) {
    set_shifts(a, plan);
  }
  run_cpu(a, plan, Mode::Value, a.kind, false, false);
  return std::move(plan.values);
}

std::vector<Tensor> adversarial_loss_backward_cpu(
    TensorList grads, TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind,
    Numbers real_term, Numbers fake_term, int64_t reduction) {
  const AdversarialArgs a =
      check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction);
  const bool each = reduction == None;
  TORCH_CHECK_VALUE(
      grads.size() == (each ? a.term_count() : 1), "adversarial_loss_backward got ", grads.size(), " gradients");
  AdversarialPlan plan =
      plan_adversarial(a, true, false, each ? grads : TensorList(), each ? 1.0 : read_scalar(grads[0]));
  if (a.averaged()) {
    set_shifts(a, plan);
    set_offsets(a, plan, run_cpu(a, plan, Mode::Reduce, a.kind, false, true));
  }
  run_cpu(a, plan, Mode::Grad, a.kind, false, a.averaged());
  return std::move(plan.gradients);
}

// ---- Meta: shapes, for fake tensors and torch.compile

Result adversarial_loss_meta(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term, int64_t reduction, bool with_stats, bool with_gradients) {
  const AdversarialArgs a =
      check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction);
  const auto options = a.first().options().dtype(accumulate_type(a.first().scalar_type()));
  std::vector<Tensor> gradients;
  if (with_gradients) {
    for (TensorList side : {real, fake}) {
      for (const Tensor& x : side) {
        gradients.push_back(at::empty_like(x));
      }
    }
  }
  return {at::empty({}, options), at::empty({with_stats ? 5 : 0}, options), std::move(gradients)};
}

std::vector<Tensor> adversarial_terms_meta(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term) {
  const AdversarialArgs a = check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, None);
  std::vector<Tensor> terms;
  for (const Tensor& x : a.real) {
    terms.push_back(at::empty_like(x));
  }
  for (size_t k = 0; k < a.fake.size() && !a.paired(); ++k) {
    terms.push_back(at::empty_like(a.fake[k]));
  }
  return terms;
}

std::vector<Tensor> adversarial_loss_backward_meta(
    TensorList, TensorList real, TensorList fake, TensorList, TensorList, int64_t, Numbers, Numbers, int64_t) {
  std::vector<Tensor> gradients;
  for (TensorList side : {real, fake}) {
    for (const Tensor& x : side) {
      gradients.push_back(at::empty_like(x));
    }
  }
  return gradients;
}

// ---- Autograd

// Everything of the arguments but the logits, which autograd must see by themselves.
AdversarialArgs with_logits(AdversarialArgs a, TensorList logits) {
  const size_t n = a.real.size();
  a.real = logits.slice(0, n);
  a.fake = logits.slice(n);
  return a;
}

std::vector<Tensor> logits_of(const AdversarialArgs& a) {
  std::vector<Tensor> all;
  all.reserve(a.real.size() + a.fake.size());
  all.insert(all.end(), a.real.begin(), a.real.end());
  all.insert(all.end(), a.fake.begin(), a.fake.end());
  return all;
}

// What a node keeps besides its saved tensors: the arguments without their tensors, and gradients written in the forward
// until they are handed out. They are handed out once, for then they belong to whoever asked for them.
struct Spec : torch::CustomClassHolder {
  explicit Spec(const AdversarialArgs& a)
      : kind(a.kind),
        real_term(a.real_term),
        fake_term(a.fake_term),
        reduction(a.reduction),
        n_real(a.real.size()),
        n_fake(a.fake.size()),
        n_real_weight(a.real_weight.size()),
        n_fake_weight(a.fake_weight.size()) {}
  Kind kind;
  TermNumbers real_term, fake_term;
  int64_t reduction;
  size_t n_real, n_fake, n_real_weight, n_fake_weight;
  std::vector<Tensor> ahead;
};

const char* const kSpec = "spec";

c10::intrusive_ptr<Spec> save(AutogradContext* ctx, const AdversarialArgs& a, TensorList more = {}) {
  auto spec = c10::make_intrusive<Spec>(a);
  std::vector<Tensor> saved;
  saved.reserve(spec->n_real + spec->n_fake + spec->n_real_weight + spec->n_fake_weight + more.size());
  for (const TensorList part : {a.real, a.fake, a.real_weight, a.fake_weight, more}) {
    saved.insert(saved.end(), part.begin(), part.end());
  }
  ctx->save_for_backward(std::move(saved));
  ctx->saved_data[kSpec] = c10::IValue::make_capsule(spec);
  return spec;
}

Spec& spec_of(AutogradContext* ctx) {
  return *static_cast<Spec*>(ctx->saved_data[kSpec].toCapsule().get());
}

// The arguments of a node's forward, and the tensors they are views of.
struct Restored {
  explicit Restored(AutogradContext* ctx) : tensors(ctx->get_saved_variables()) {
    const Spec& spec = spec_of(ctx);
    TensorList rest = tensors;
    const auto take = [&](size_t n) {
      const TensorList part = rest.slice(0, n);
      rest = rest.slice(n);
      return part;
    };
    args.kind = spec.kind;
    args.real_term = spec.real_term;
    args.fake_term = spec.fake_term;
    args.reduction = spec.reduction;
    args.real = take(spec.n_real);
    args.fake = take(spec.n_fake);
    args.real_weight = take(spec.n_real_weight);
    args.fake_weight = take(spec.n_fake_weight);
    more = rest;
  }
  Restored(const Restored&) = delete;

  variable_list tensors;
  AdversarialArgs args;
  TensorList more;
};

// phi' and phi'' of a term with the weights left out, in the accumulation type, differentiable further.
Tensor first_derivative(Kind kind, const TermNumbers& t, const Tensor& u) {
  switch (kind) {
    case Kind::Linear:
      return at::zeros_like(u) + (t.scale + t.slope);
    case Kind::Hinge:
      return (u * t.p + 1).le(0).logical_not().to(u.scalar_type()) * (t.scale * t.p) + t.slope;
    case Kind::Square:
      return (u - t.p) * t.scale + t.slope;
    default:
      return at::sigmoid(u * t.p) * (t.scale * t.p) + t.slope;
  }
}

// Undefined where it is zero.
Tensor second_derivative(Kind kind, const TermNumbers& t, const Tensor& u) {
  switch (kind) {
    case Kind::Linear:
    case Kind::Hinge:
      return {};
    case Kind::Square:
      return at::zeros_like(u) + t.scale;
    default: {
      const Tensor s = at::sigmoid(u * t.p);
      return s * at::sigmoid(u * -t.p) * (t.scale * t.p * t.p);
    }
  }
}

Tensor plus(const Tensor& a, const Tensor& b) {
  return !a.defined() ? b : !b.defined() ? a : a + b;
}

// The gradient is a function of the incoming gradients and of the logits; this is its derivative, in plain ATen ops, so
// that any further order follows.
struct AdversarialBackward : torch::autograd::Function<AdversarialBackward> {
  static variable_list forward(
      AutogradContext* ctx, TensorList grads, TensorList logits, const AdversarialArgs& rest) {
    ctx->set_materialize_grads(false);
    const AdversarialArgs a = with_logits(rest, logits);
    save(ctx, a, grads);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(grads, a);
  }

  // v: cotangents of the logits' gradients. L = sum_k <v_k, G_k>; returned are dL/d grads and dL/d logits.
  static variable_list backward(AutogradContext* ctx, const variable_list& v) {
    const Restored r(ctx);
    const AdversarialArgs& a = r.args;
    const TensorList grads = r.more;
    const size_t n_real = a.real.size(), n = n_real + a.fake.size(), terms = a.term_count();
    const at::ScalarType type = accumulate_type(a.first().scalar_type());
    std::vector<Tensor> d_grads(grads.size()), d_logits(n);
    const auto up = [&](const Tensor& t) { return t.defined() ? t.to(type) : t; };

    for (size_t k = 0; k < terms; ++k) {
      const bool is_real = k < n_real;
      const size_t i = is_real ? k : k - n_real;
      const Tensor x = up(is_real ? a.real[i] : a.fake[i]);
      Tensor u = x, cotangent = up(v[k]);
      if (a.paired()) {
        u = x - up(a.fake[k]);
        const Tensor other = up(v[n_real + k]);
        cotangent = other.defined() ? plus(cotangent, -other) : cotangent;
      } else if (a.averaged()) {
        u = x - up(is_real ? a.fake[i] : a.real[i]).mean();
        const Tensor other = up(v[is_real ? n_real + i : i]);
        cotangent = other.defined() ? plus(cotangent, -other.mean().expand_as(x)) : cotangent;
      }
      if (!cotangent.defined()) {
        continue;
      }
      const TermNumbers& t = is_real ? a.real_term : a.fake_term;
      Tensor weight;
      if (const auto& w = is_real ? a.real_weight : a.fake_weight; !w.empty()) {
        weight = spread_weight(w[i].to(type), x);
      }
      if (a.paired() && !a.fake_weight.empty()) {
        const Tensor other = spread_weight(a.fake_weight[i].to(type), x);
        weight = weight.defined() ? weight * other : other;
      }
      const Tensor weighted = weight.defined() ? cotangent * weight : cotangent;

      const Tensor for_grad = weighted * first_derivative(a.kind, t, u);
      if (a.reduction == None) {
        d_grads[k] = for_grad.to(grads[k].scalar_type());
      } else {
        const Tensor sum = a.reduction == Mean ? for_grad.mean() : for_grad.sum();
        d_grads[0] = plus(d_grads[0], sum.to(grads[0].scalar_type()));
      }
      const Tensor curvature = second_derivative(a.kind, t, u);
      if (!curvature.defined()) {
        continue;
      }
      Tensor g = up(a.reduction == None ? grads[k] : grads[0]);
      if (a.reduction == Mean) {
        g = divided_by_count(g, x);
      }
      const Tensor for_u = weighted * curvature * g;
      d_logits[k] = plus(d_logits[k], for_u);
      if (a.paired()) {
        d_logits[n_real + k] = plus(d_logits[n_real + k], -for_u);
      } else if (a.averaged()) {
        const size_t o = is_real ? n_real + i : i;
        const Tensor& other = is_real ? a.fake[i] : a.real[i];
        d_logits[o] = plus(d_logits[o], divided_by_count(-for_u.sum(), other).expand_as(other));
      }
    }
    variable_list out;
    for (const Tensor& g : d_grads) {
      out.push_back(g);
    }
    for (size_t k = 0; k < n; ++k) {
      out.push_back(d_logits[k].defined() ? d_logits[k].to(a.first().scalar_type()) : d_logits[k]);
    }
    out.emplace_back();
    return out;
  }
};

std::vector<Tensor> backward_autograd(TensorList grads, const AdversarialArgs& a) {
  return AdversarialBackward::apply(grads, TensorList(logits_of(a)), a);
}

std::vector<Tensor> adversarial_loss_backward_autograd(
    TensorList grads, TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind,
    Numbers real_term, Numbers fake_term, int64_t reduction) {
  return backward_autograd(
      grads, check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction));
}

struct AdversarialLoss : torch::autograd::Function<AdversarialLoss> {
  static variable_list forward(
      AutogradContext* ctx, TensorList logits, const AdversarialArgs& rest, bool with_stats, Tensor* result_stats) {
    ctx->set_materialize_grads(false);
    const AdversarialArgs a = with_logits(rest, logits);
    at::AutoDispatchBelowADInplaceOrView guard;
    auto [loss, stats, gradients] = call_loss(a, with_stats, a.first().device().is_cpu());
    save(ctx, a)->ahead = std::move(gradients);
    *result_stats = std::move(stats);  // not differentiable: autograd need not know of it
    return {std::move(loss)};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    Spec& spec = spec_of(ctx);
    const Tensor& g = grads[0];
    variable_list out;
    if (g.defined()) {
      const bool ready = !spec.ahead.empty() && !at::GradMode::is_enabled();
      if (ready && is_plain_cpu(g)) {
        if (read_scalar(g) == 1.0) {
          out = std::exchange(spec.ahead, {});
        }
      } else if (ready && accumulate_type(spec.ahead[0].scalar_type()) == spec.ahead[0].scalar_type()) {
        for (const Tensor& s : spec.ahead) {
          out.push_back(s * g);
        }
      }
      if (out.empty()) {
        out = call_backward(g, Restored(ctx).args);
      }
    }
    out.resize(spec.n_real + spec.n_fake + 3);
    return out;
  }
};

bool any_requires_grad(TensorList a, TensorList b) {
  const auto needs = [](const Tensor& t) { return t.requires_grad(); };
  return at::GradMode::is_enabled() &&
      (std::any_of(a.begin(), a.end(), needs) || std::any_of(b.begin(), b.end(), needs));
}

Result adversarial_loss_autograd(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term, int64_t reduction, bool with_stats, bool with_gradients) {
  const AdversarialArgs a =
      check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction);
  if (with_gradients || !any_requires_grad(real, fake)) {
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_loss(a, with_stats, with_gradients);
  }
  Tensor stats;
  variable_list out = AdversarialLoss::apply(TensorList(logits_of(a)), a, with_stats, &stats);
  return {std::move(out[0]), std::move(stats), std::vector<Tensor>()};
}

struct AdversarialTerms : torch::autograd::Function<AdversarialTerms> {
  static variable_list forward(AutogradContext* ctx, TensorList logits, const AdversarialArgs& rest) {
    const AdversarialArgs a = with_logits(rest, logits);
    save(ctx, a);
    at::AutoDispatchBelowADInplaceOrView guard;
    return call_terms(a);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out = call_backward(grads, Restored(ctx).args);
    out.emplace_back();
    return out;
  }
};

std::vector<Tensor> adversarial_terms_autograd(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term) {
  const AdversarialArgs a = check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, None);
  return AdversarialTerms::apply(TensorList(logits_of(a)), a);
}

// ---- Autocast: the kernels read any precision and sum in float32; only a mixture of dtypes needs a cast.

template <c10::DeviceType kDevice>
std::vector<Tensor> to_common(TensorList list, bool mixed) {
  std::vector<Tensor> out;
  for (const Tensor& x : list) {
    out.push_back(mixed ? at::autocast::cached_cast(at::kFloat, x, kDevice) : x);
  }
  return out;
}

bool mixed_dtypes(TensorList a, TensorList b) {
  const Tensor* first = !a.empty() ? &a[0] : !b.empty() ? &b[0] : nullptr;
  const auto differs = [&](const Tensor& t) { return t.scalar_type() != first->scalar_type(); };
  return first != nullptr && (std::any_of(a.begin(), a.end(), differs) || std::any_of(b.begin(), b.end(), differs));
}

template <c10::DeviceType kDevice>
Result adversarial_loss_autocast(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term, int64_t reduction, bool with_stats, bool with_gradients) {
  c10::impl::ExcludeDispatchKeyGuard guard(at::autocast::get_autocast_dispatch_key_from_device_type(kDevice));
  const bool mixed = mixed_dtypes(real, fake);
  const std::vector<Tensor> reals = to_common<kDevice>(real, mixed), fakes = to_common<kDevice>(fake, mixed);
  AdversarialArgs a;
  a.real = reals;
  a.fake = fakes;
  a.real_weight = real_weight;
  a.fake_weight = fake_weight;
  a.kind = static_cast<Kind>(kind);
  a.real_term = term_numbers(real_term);
  a.fake_term = term_numbers(fake_term);
  a.reduction = reduction;
  return call_loss(a, with_stats, with_gradients);
}

template <c10::DeviceType kDevice>
std::vector<Tensor> adversarial_terms_autocast(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term) {
  c10::impl::ExcludeDispatchKeyGuard guard(at::autocast::get_autocast_dispatch_key_from_device_type(kDevice));
  const bool mixed = mixed_dtypes(real, fake);
  const std::vector<Tensor> reals = to_common<kDevice>(real, mixed), fakes = to_common<kDevice>(fake, mixed);
  AdversarialArgs a;
  a.real = reals;
  a.fake = fakes;
  a.real_weight = real_weight;
  a.fake_weight = fake_weight;
  a.kind = static_cast<Kind>(kind);
  a.real_term = term_numbers(real_term);
  a.fake_term = term_numbers(fake_term);
  return call_terms(a);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "adversarial_loss(Tensor[] real, Tensor[] fake, Tensor[] real_weight, Tensor[] fake_weight, int kind, "
      "float[] real_term, float[] fake_term, int reduction, bool with_stats, bool with_gradients) "
      "-> (Tensor, Tensor, Tensor[])");
  m.def(
      "adversarial_terms(Tensor[] real, Tensor[] fake, Tensor[] real_weight, Tensor[] fake_weight, int kind, "
      "float[] real_term, float[] fake_term) -> Tensor[]");
  m.def(
      "adversarial_loss_backward(Tensor[] grads, Tensor[] real, Tensor[] fake, Tensor[] real_weight, "
      "Tensor[] fake_weight, int kind, float[] real_term, float[] fake_term, int reduction) -> Tensor[]");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("adversarial_loss", &adversarial_loss_cpu);
  m.impl("adversarial_terms", &adversarial_terms_cpu);
  m.impl("adversarial_loss_backward", &adversarial_loss_backward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("adversarial_loss", &adversarial_loss_meta);
  m.impl("adversarial_terms", &adversarial_terms_meta);
  m.impl("adversarial_loss_backward", &adversarial_loss_backward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("adversarial_loss", &adversarial_loss_autograd);
  m.impl("adversarial_terms", &adversarial_terms_autograd);
  m.impl("adversarial_loss_backward", &adversarial_loss_backward_autograd);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCPU, m) {
  m.impl("adversarial_loss", &adversarial_loss_autocast<c10::DeviceType::CPU>);
  m.impl("adversarial_terms", &adversarial_terms_autocast<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCUDA, m) {
  m.impl("adversarial_loss", &adversarial_loss_autocast<c10::DeviceType::CUDA>);
  m.impl("adversarial_terms", &adversarial_terms_autocast<c10::DeviceType::CUDA>);
}

}  // namespace gan_fast
