// bias_act: schemas, autograd to any order, the CPU implementation. The formulas are in bias_act.h.
//
//   bias_act(x, b, scale, noise, dim, act, alpha, gain, clamp) -> y
//   bias_act_backward(dy, x, y, b, scale, noise, ..., wanted) -> (dx, db, dscale, dnoise)
//   bias_act_backward_(dy, ...) -> (db, dscale, dnoise), with dx in the memory of dy
//   bias_act_double_backward(tx, tb, tscale, tnoise, dy, x, y, ..., wanted) -> (ddy, dx, db, dscale, dnoise)
//
// What is not wanted is an empty tensor. Of x and y a backward is given what it reads: the result for linear with a clamp,
// relu and lrelu, x for the other activations and for dscale; nothing for linear, whose derivative is the gain.
// Third and higher orders are derivatives of the double backward written in aten's functions.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "bias_act/bias_act_host.h"

namespace gan_fast {

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using Wanted4 = std::array<bool, 4>;
using Wanted5 = std::array<bool, 5>;

struct Numbers {
  int64_t dim, act;
  double alpha, gain, clamp;
  BiasActNumbers formula() const { return {static_cast<int>(act), alpha, gain, clamp}; }
};

OptionalTensor optional(const Tensor& t) {
  return t.defined() ? OptionalTensor(t) : std::nullopt;
}

Tensor call_forward(
    const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise, const Numbers& p) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gan_fast::bias_act", "")
          .typed<Tensor(
              const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, int64_t, int64_t, double,
              double, double)>();
  return op.call(x, b, scale, noise, p.dim, p.act, p.alpha, p.gain, p.clamp);
}

// The tensors that a backward is given, undefined where absent.
struct Given {
  Tensor x, y, b, scale, noise;
};

FourTensors call_backward(const Tensor& dy, const Given& given, const Numbers& p, const Wanted4& wanted) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gan_fast::bias_act_backward", "")
          .typed<FourTensors(
              const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
              const OptionalTensor&, int64_t, int64_t, double, double, double, Wanted4)>();
  return op.call(
      dy, optional(given.x), optional(given.y), optional(given.b), optional(given.scale), optional(given.noise), p.dim, p.act,
      p.alpha, p.gain, p.clamp, wanted);
}

// The same with dx in the memory of dy.
FourTensors call_backward_in_place(Tensor dy, const Given& given, const Numbers& p, const Wanted4& wanted) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gan_fast::bias_act_backward_", "")
          .typed<ThreeTensors(
              Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&,
              const OptionalTensor&, int64_t, int64_t, double, double, double, Wanted4)>();
  auto [db, dscale, dnoise] = op.call(
      dy, optional(given.x), optional(given.y), optional(given.b), optional(given.scale), optional(given.noise), p.dim, p.act,
      p.alpha, p.gain, p.clamp, wanted);
  return {std::move(dy), std::move(db), std::move(dscale), std::move(dnoise)};
}

using DoubleBackward = FiveTensors(
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&,
    const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, int64_t,
    int64_t, double, double, double, Wanted5);

FiveTensors call_double_backward(
    const std::array<Tensor, 4>& t, const Tensor& dy, const Given& given, const Numbers& p, const Wanted5& wanted) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow("gan_fast::bias_act_double_backward", "").typed<DoubleBackward>();
  return op.call(
      optional(t[0]), optional(t[1]), optional(t[2]), optional(t[3]), dy, optional(given.x), optional(given.y),
      optional(given.b), optional(given.scale), optional(given.noise), p.dim, p.act, p.alpha, p.gain, p.clamp, wanted);
}

// ---- CPU

Tensor or_nothing(Tensor t, const Tensor& dy) {
  return t.defined() ? std::move(t) : at::empty({0}, dy.options().memory_format(std::nullopt));
}

Tensor forward_cpu(
    const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim, int64_t act,
    double alpha, double gain, double clamp) {
  BiasActCall call(x, {}, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act(x, call);
  const BiasActPass pass = BiasActPass::forward(call);
  run_bias_act_on_cpu(pass, call, {});
  return pass.out.finish(x);
}

FourTensors backward_cpu(
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted4 wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, wanted[2]);
  const BiasActPass pass = BiasActPass::backward(dy, call, wanted);
  auto [db, dscale, dnoise] = run_bias_act_on_cpu(pass, call, {wanted[1], wanted[2], wanted[3]});
  return {pass.out.finish(or_nothing({}, dy)), or_nothing(db, dy), or_nothing(dscale, dy), or_nothing(dnoise, dy)};
}

ThreeTensors backward_in_place_cpu(
    Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted4 wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, wanted[2]);
  const BiasActPass pass = BiasActPass::backward(dy, call, wanted, true);
  auto [db, dscale, dnoise] = run_bias_act_on_cpu(pass, call, {wanted[1], wanted[2], wanted[3]});
  pass.out.finish(dy);
  return {or_nothing(db, dy), or_nothing(dscale, dy), or_nothing(dnoise, dy)};
}

FiveTensors double_backward_cpu(
    const OptionalTensor& tx, const OptionalTensor& tb, const OptionalTensor& tscale, const OptionalTensor& tnoise,
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted5 wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  const std::array<Tensor, 4> t = {tx.value_or(Tensor()), tb.value_or(Tensor()), tscale.value_or(Tensor()), tnoise.value_or(Tensor())};
  check_bias_act_backward(dy, call, t[2].defined());
  check_cotangents(t, dy, call);
  const BiasActPass pass = BiasActPass::double_backward(t, dy, call, wanted);
  auto [db, dscale, dnoise] = run_bias_act_on_cpu(pass, call, {wanted[2], wanted[3], wanted[4]});
  const Tensor nothing = or_nothing({}, dy);
  return {pass.out.finish(nothing), pass.out2.finish(or_nothing({}, dy)), or_nothing(db, dy), or_nothing(dscale, dy), or_nothing(dnoise, dy)};
}

// ---- Shapes for tracing

Tensor forward_meta(
    const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim, int64_t act,
    double alpha, double gain, double clamp) {
  BiasActCall call(x, {}, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act(x, call);
  return at::empty_like(x);
}

Tensor shaped_like(bool wanted, const Tensor& t, const Tensor& dy) {
  return wanted && t.defined() ? at::empty_symint(t.sym_sizes(), t.options().memory_format(std::nullopt)) : or_nothing({}, dy);
}

FourTensors backward_meta(
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted4 wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, wanted[2]);
  return {
      wanted[0] ? at::empty_like(call.like(dy)) : or_nothing({}, dy), shaped_like(wanted[1], call.b, dy),
      shaped_like(wanted[2], call.scale, dy), shaped_like(wanted[3], call.noise, dy)};
}

ThreeTensors backward_in_place_meta(
    Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted4 wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, wanted[2]);
  return {shaped_like(wanted[1], call.b, dy), shaped_like(wanted[2], call.scale, dy), shaped_like(wanted[3], call.noise, dy)};
}

FiveTensors double_backward_meta(
    const OptionalTensor& tx, const OptionalTensor& tb, const OptionalTensor& tscale, const OptionalTensor& tnoise,
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted5 wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, tscale.has_value() && tscale->defined());
  check_cotangents({tx.value_or(Tensor()), tb.value_or(Tensor()), tscale.value_or(Tensor()), tnoise.value_or(Tensor())}, dy, call);
  const auto big = [&](bool is_wanted) { return is_wanted ? at::empty_like(call.like(dy)) : or_nothing({}, dy); };
  return {
      big(wanted[0]), big(wanted[1]), shaped_like(wanted[2], call.b, dy), shaped_like(wanted[3], call.scale, dy),
      shaped_like(wanted[4], call.noise, dy)};
}

// ---- Autograd

void save(AutogradContext* ctx, const Given& given, const Tensor& dy, const Numbers& p) {
  ctx->set_materialize_grads(false);
  ctx->save_for_backward({given.x, given.y, given.b, given.scale, given.noise, dy});
  ctx->saved_data["dim"] = p.dim;
  ctx->saved_data["act"] = p.act;
  ctx->saved_data["alpha"] = p.alpha;
  ctx->saved_data["gain"] = p.gain;
  ctx->saved_data["clamp"] = p.clamp;
}

Numbers numbers_of(AutogradContext* ctx) {
  return {
      ctx->saved_data["dim"].toInt(), ctx->saved_data["act"].toInt(), ctx->saved_data["alpha"].toDouble(),
      ctx->saved_data["gain"].toDouble(), ctx->saved_data["clamp"].toDouble()};
}

// y is read for its sign and for whether it is clamped: no gradient goes through it.
Given given_of(const variable_list& saved) {
  return {saved[0], saved[1].defined() ? saved[1].detach() : Tensor(), saved[2], saved[3], saved[4]};
}

// Whether nobody else sees dy and it lies as dx would, so that dx may take its memory: warm, and an activation less at the peak.
bool may_be_overwritten(const Tensor& dy, const Given& given) {
  if (at::GradMode::is_enabled() || dy.use_count() != 1 || at::isTensorSubclassLike(dy) || !dy.has_storage() ||
      dy.storage().use_count() != 1 || !dy.is_non_overlapping_and_dense()) {
    return false;
  }
  const Tensor& like = given.y.defined() ? given.y : given.x;
  return !like.defined() || like.strides() == dy.strides();
}

// needs_input_grad counts edges, and an absent tensor has none.
class Edges {
 public:
  explicit Edges(AutogradContext* ctx) : ctx_(ctx) {}
  bool needs_next(bool is_there) { return is_there && ctx_->needs_input_grad(next_++); }

 private:
  AutogradContext* ctx_;
  size_t next_ = 0;
};

// Tensors whose shapes and values count, and whose graph does not: not edges of the node.
struct Constants {
  Tensor y, b, noise;
};

struct BiasActBackward : torch::autograd::Function<BiasActBackward> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& dy, const OptionalTensor& x, const OptionalTensor& b, const OptionalTensor& scale,
      const OptionalTensor& noise, const Constants& constants, const Numbers& p, const Wanted4& wanted) {
    const Given given{
        x.value_or(Tensor()), constants.y, b.value_or(constants.b), scale.value_or(Tensor()), noise.value_or(constants.noise)};
    save(ctx, given, dy, p);
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [dx, db, dscale, dnoise] = call_backward(dy, given, p, wanted);
    variable_list out = {std::move(dx), std::move(db), std::move(dscale), std::move(dnoise)};
    variable_list nothing;
    for (size_t i = 0; i < out.size(); ++i) {
      if (!wanted[i]) nothing.push_back(out[i]);
    }
    ctx->mark_non_differentiable(nothing);
    return out;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(8);
    if (std::none_of(grads.begin(), grads.end(), [](const Tensor& t) { return t.defined(); })) {
      return out;
    }
    const variable_list saved = ctx->get_saved_variables();
    const Given given = given_of(saved);
    const Numbers p = numbers_of(ctx);
    const bool curved = reads_input(p.formula());
    Edges edges(ctx);
    const bool to_dy = edges.needs_next(true), to_x = edges.needs_next(given.x.defined()), to_b = edges.needs_next(curved && given.b.defined()),
               to_scale = edges.needs_next(given.scale.defined()), to_noise = edges.needs_next(curved && given.noise.defined());
    // Where D2 is zero only the products with the scale are left.
    const Wanted5 wanted = {
        to_dy, to_x && (curved || grads[2].defined()), to_b, to_scale && (curved || grads[0].defined()), to_noise};
    if (std::none_of(wanted.begin(), wanted.end(), [](bool w) { return w; })) {
      return out;
    }
    auto results = call_double_backward({grads[0], grads[1], grads[2], grads[3]}, saved[5], given, p, wanted);
    if (wanted[0]) out[0] = std::get<0>(results);
    if (wanted[1]) out[1] = std::get<1>(results);
    if (wanted[2]) out[2] = std::get<2>(results);
    if (wanted[3]) out[3] = std::get<3>(results);
    if (wanted[4]) out[4] = std::get<4>(results);
    return out;
  }
};

struct BiasAct : torch::autograd::Function<BiasAct> {
  static Tensor forward(
      AutogradContext* ctx, const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise,
      const Numbers& p) {
    const auto tensor = [](const OptionalTensor& t) { return t.value_or(Tensor()); };
    Tensor y;
    {
      const at::AutoDispatchBelowADInplaceOrView guard;
      y = call_forward(x, b, scale, noise, p);
    }
    const bool keeps_x = reads_input(p.formula()) || (tensor(scale).defined() && scale->requires_grad());
    save(
        ctx, {keeps_x ? x : Tensor(), reads_result(p.formula()) ? y : Tensor(), tensor(b), tensor(scale), tensor(noise)}, {}, p);
    return y;
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(5);
    if (!grads[0].defined()) {
      return out;
    }
    const Given given = given_of(ctx->get_saved_variables());
    Edges edges(ctx);
    const bool to_x = edges.needs_next(true), to_b = edges.needs_next(given.b.defined()),
               to_scale = edges.needs_next(given.scale.defined()), to_noise = edges.needs_next(given.noise.defined());
    if (!(to_x || to_b || to_scale || to_noise)) {
      return out;
    }
    Given read = given;
    const Numbers p = numbers_of(ctx);
    if (!to_scale && !reads_input(p.formula())) {
      read.x = Tensor();
    }
    const Wanted4 wanted = {to_x, to_b, to_scale, to_noise};
    auto [dx, db, dscale, dnoise] = to_x && may_be_overwritten(grads[0], read) ? call_backward_in_place(grads[0], read, p, wanted)
                                                              : call_backward(grads[0], read, p, wanted);
    if (to_x) out[0] = dx;
    if (to_b) out[1] = db;
    if (to_scale) out[2] = dscale;
    if (to_noise) out[3] = dnoise;
    return out;
  }
};

Tensor forward_autograd(
    const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim, int64_t act,
    double alpha, double gain, double clamp) {
  return BiasAct::apply(x, b, scale, noise, Numbers{dim, act, alpha, gain, clamp});
}

FourTensors backward_autograd(
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted4 wanted) {
  const Numbers p{dim, act, alpha, gain, clamp};
  const auto constant = [](const OptionalTensor& t) { return t.has_value() && t->defined() ? t->detach() : Tensor(); };
  // b and noise count through D2 alone
  const bool curved = reads_input(p.formula());
  variable_list out = BiasActBackward::apply(
      dy, x, curved ? b : std::nullopt, scale, curved ? noise : std::nullopt,
      Constants{constant(y), constant(b), constant(noise)}, p, wanted);
  return {std::move(out[0]), std::move(out[1]), std::move(out[2]), std::move(out[3])};
}

FiveTensors double_backward_autograd(
    const OptionalTensor& tx, const OptionalTensor& tb, const OptionalTensor& tscale, const OptionalTensor& tnoise,
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, Wanted5 wanted) {
  bool followed = dy.requires_grad();
  for (const OptionalTensor* t : {&tx, &tb, &tscale, &tnoise, &x, &b, &scale, &noise}) {
    followed |= t->has_value() && (*t)->defined() && (*t)->requires_grad();
  }
  const std::array<Tensor, 4> t = {tx.value_or(Tensor()), tb.value_or(Tensor()), tscale.value_or(Tensor()), tnoise.value_or(Tensor())};
  if (followed && at::GradMode::is_enabled()) {
    BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
    check_bias_act_backward(dy, call, t[2].defined());
    check_cotangents(t, dy, call);
    return differentiable_double_backward(t, dy, call, wanted);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  const BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  return call_double_backward(t, dy, {call.x, call.y, call.b, call.scale, call.noise}, {dim, act, alpha, gain, clamp}, wanted);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "bias_act(Tensor x, Tensor? b, Tensor? scale, Tensor? noise, int dim, int act, float alpha, float gain, float clamp) "
      "-> Tensor");
  m.def(
      "bias_act_backward(Tensor dy, Tensor? x, Tensor? y, Tensor? b, Tensor? scale, Tensor? noise, int dim, int act, "
      "float alpha, float gain, float clamp, bool[4] wanted) -> (Tensor dx, Tensor db, Tensor dscale, Tensor dnoise)");
  m.def(
      "bias_act_backward_(Tensor(a!) dy, Tensor? x, Tensor? y, Tensor? b, Tensor? scale, Tensor? noise, int dim, int act, "
      "float alpha, float gain, float clamp, bool[4] wanted) -> (Tensor db, Tensor dscale, Tensor dnoise)");
  m.def(
      "bias_act_double_backward(Tensor? tx, Tensor? tb, Tensor? tscale, Tensor? tnoise, Tensor dy, Tensor? x, Tensor? y, "
      "Tensor? b, Tensor? scale, Tensor? noise, int dim, int act, float alpha, float gain, float clamp, bool[5] wanted) -> "
      "(Tensor ddy, Tensor dx, Tensor db, Tensor dscale, Tensor dnoise)");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("bias_act", &forward_cpu);
  m.impl("bias_act_backward", &backward_cpu);
  m.impl("bias_act_backward_", &backward_in_place_cpu);
  m.impl("bias_act_double_backward", &double_backward_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("bias_act", &forward_meta);
  m.impl("bias_act_backward", &backward_meta);
  m.impl("bias_act_backward_", &backward_in_place_meta);
  m.impl("bias_act_double_backward", &double_backward_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("bias_act", &forward_autograd);
  m.impl("bias_act_backward", &backward_autograd);
  m.impl("bias_act_double_backward", &double_backward_autograd);
}

}  // namespace gan_fast
