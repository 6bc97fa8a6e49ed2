// Leaky ReLU of an image at a higher resolution: schemas, autograd to any order, the CPU implementation.
//
//   filtered_lrelu(x, ...) -> (y, mask)                     y = D(clamp(gain lrelu(U(x + b))))
//   filtered_lrelu_backward(dy, mask, ...) -> U* s D* dy    s the slope that the mask tells
//   filtered_lrelu_tangent(v, mask, ...) -> D s U v
//
// The two are each other's adjoints, linear in their first argument and constant in the mask, so any order of gradient is
// made of them. The mask is an output: saved between nodes like any other tensor, also by a compiler.

#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include "common/cpu/isa.h"
#include "common/host.h"
#include "filtered_lrelu/filtered_lrelu_host.h"

namespace gan_fast {

GAN_FAST_CPU_KERNEL(filtered_lrelu_rows, void, (int storage, const FilterPass& pass, long long chunk_rows, long long begin, long long end))

namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;
using OptionalTensor = std::optional<Tensor>;
using Result = std::tuple<Tensor, Tensor>;

FilterSettings settings(
    const OptionalTensor& fu, const OptionalTensor& fd, int64_t up, int64_t down, at::IntArrayRef padding, double gain, double slope,
    bool flip_filter) {
  return {fu.value_or(Tensor()), fd.value_or(Tensor()), up, down, padding.vec(), gain, slope, flip_filter};
}

OptionalTensor optional(const Tensor& t) {
  return t.defined() ? OptionalTensor(t) : std::nullopt;
}

Result call_forward(const Tensor& x, const OptionalTensor& b, const FilterSettings& s, std::optional<double> clamp, bool with_mask) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("gan_fast::filtered_lrelu", "")
          .typed<Result(
              const Tensor&, const OptionalTensor&, const OptionalTensor&, const OptionalTensor&, int64_t, int64_t, at::IntArrayRef, double,
              double, std::optional<double>, bool, bool)>();
  return op.call(
      x, optional(s.fu), optional(s.fd), b, s.up, s.down, s.padding, s.gain, s.slope, clamp, s.flip_filter, with_mask);
}

Tensor call_backward(const Tensor& dy, const Tensor& mask, c10::SymIntArrayRef size, const FilterSettings& s) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::filtered_lrelu_backward", "")
                             .typed<Tensor(
                                 const Tensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&, c10::SymIntArrayRef, int64_t,
                                 int64_t, at::IntArrayRef, double, double, bool)>();
  return op.call(dy, optional(s.fu), optional(s.fd), mask, size, s.up, s.down, s.padding, s.gain, s.slope, s.flip_filter);
}

Tensor call_tangent(const Tensor& v, const Tensor& mask, const FilterSettings& s) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("gan_fast::filtered_lrelu_tangent", "")
                             .typed<Tensor(
                                 const Tensor&, const OptionalTensor&, const OptionalTensor&, const Tensor&, int64_t, int64_t,
                                 at::IntArrayRef, double, double, bool)>();
  return op.call(v, optional(s.fu), optional(s.fd), mask, s.up, s.down, s.padding, s.gain, s.slope, s.flip_filter);
}

// ---- CPU

// Work is shared by planes (of one channel, or in channels_last of a block of them) and, where those are few, by rows too.
void run_cpu(const HeldPass& h) {
  const FilterPass& p = h.pass;
  if (h.y.numel() == 0) {
    return;
  }
  const int64_t planes = p.samples * ceil_divide(p.channels, channel_block(p));
  const int64_t rows = p.vertical.out;
  const int64_t wanted = ceil_divide(4 * at::get_num_threads(), planes);
  // Whole bytes of the mask belong to one chunk; a chunk filters its first rows anew, so it has many.
  const int64_t chunk = at_least(ceil_divide(ceil_divide(rows, wanted), 4) * 4, 32);
  const int64_t tasks = planes * ceil_divide(rows, chunk);
  const int storage = storage_code(h.x.scalar_type());
  const auto kernel = filtered_lrelu_rows_kernel();
  const int64_t elements = at_most(chunk, rows) * p.horizontal.out * p.up * p.up;
  const int64_t grain = at_least(1, 32768 / at_least(elements, 1));
  at::parallel_for(0, tasks, grain, [&](int64_t begin, int64_t end) { kernel(storage, p, chunk, begin, end); });
}

Result forward_cpu(
    const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd, const OptionalTensor& b, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, std::optional<double> clamp, bool flip_filter, bool with_mask) {
  const HeldPass h = forward_pass(x, b, settings(fu, fd, up, down, padding, gain, slope, flip_filter), clamp, with_mask);
  run_cpu(h);
  return {h.y, h.mask};
}

Tensor backward_cpu(
    const Tensor& dy, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, at::IntArrayRef size, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  const HeldPass h = adjoint_pass(dy, mask, size, settings(fu, fd, up, down, padding, gain, slope, flip_filter));
  run_cpu(h);
  return h.y;
}

Tensor tangent_cpu(
    const Tensor& v, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  const HeldPass h = tangent_pass(v, mask, settings(fu, fd, up, down, padding, gain, slope, flip_filter));
  run_cpu(h);
  return h.y;
}

// ---- Shapes for tracing

Result forward_meta(
    const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd, const OptionalTensor& b, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, std::optional<double>, bool flip_filter, bool with_mask) {
  const FilterSettings s = settings(fu, fd, up, down, padding, gain, slope, flip_filter);
  check_filtered_lrelu(x, b, s);
  const at::MemoryFormat format = image_format(x);
  const auto result = result_size(x, s);
  Tensor y = at::empty_symint({x.sym_size(0), x.sym_size(1), result[0], result[1]}, x.options(), format);
  const auto options = x.options().dtype(at::kByte);
  const auto size = mask_size(result, s);
  Tensor mask = with_mask ? at::empty_symint({x.sym_size(0), x.sym_size(1), size[0], size[1]}, options, format) : at::empty({0}, options);
  return {std::move(y), std::move(mask)};
}

Tensor backward_meta(
    const Tensor& dy, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, c10::SymIntArrayRef size, int64_t up,
    int64_t down, at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  const FilterSettings s = settings(fu, fd, up, down, padding, gain, slope, flip_filter);
  check_filtered_lrelu_mask(mask, dy, {dy.sym_size(2), dy.sym_size(3)}, s);
  return at::empty_symint({dy.sym_size(0), dy.sym_size(1), size[0], size[1]}, dy.options(), image_format(mask));
}

Tensor tangent_meta(
    const Tensor& v, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  const FilterSettings s = settings(fu, fd, up, down, padding, gain, slope, flip_filter);
  check_filtered_lrelu(v, std::nullopt, s);
  const auto result = result_size(v, s);
  check_filtered_lrelu_mask(mask, v, result, s);
  return at::empty_symint({v.sym_size(0), v.sym_size(1), result[0], result[1]}, v.options(), image_format(mask));
}

// ---- Autograd

// Everything but the mask and the filters, which are saved as tensors: [mask, fu, fd].
void save(AutogradContext* ctx, const Tensor& mask, const FilterSettings& s) {
  ctx->save_for_backward({mask, s.fu, s.fd});
  ctx->saved_data["up"] = s.up;
  ctx->saved_data["down"] = s.down;
  ctx->saved_data["padding"] = s.padding;
  ctx->saved_data["gain"] = s.gain;
  ctx->saved_data["slope"] = s.slope;
  ctx->saved_data["flip_filter"] = s.flip_filter;
}

struct Saved {
  Tensor mask;
  FilterSettings settings;
};

Saved saved(AutogradContext* ctx) {
  const variable_list t = ctx->get_saved_variables();
  auto& d = ctx->saved_data;
  return {
      t[0],
      {t[1], t[2], d["up"].toInt(), d["down"].toInt(), d["padding"].toIntVector(), d["gain"].toDouble(), d["slope"].toDouble(),
       d["flip_filter"].toBool()}};
}

struct FilteredLreluTangent : torch::autograd::Function<FilteredLreluTangent> {
  static Tensor forward(AutogradContext* ctx, const Tensor& v, const Saved& in) {
    ctx->set_materialize_grads(false);
    save(ctx, in.mask, in.settings);
    ctx->saved_data["height"] = v.sym_size(2);
    ctx->saved_data["width"] = v.sym_size(3);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_tangent(v, in.mask, in.settings);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(2);
    if (grads[0].defined()) {
      const Saved s = saved(ctx);
      const std::array<c10::SymInt, 2> size = {ctx->saved_data["height"].toSymInt(), ctx->saved_data["width"].toSymInt()};
      out[0] = call_backward(grads[0], s.mask, size, s.settings);
    }
    return out;
  }
};

struct FilteredLreluBackward : torch::autograd::Function<FilteredLreluBackward> {
  static Tensor forward(AutogradContext* ctx, const Tensor& dy, const Saved& in, c10::SymIntArrayRef size) {
    ctx->set_materialize_grads(false);
    save(ctx, in.mask, in.settings);
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_backward(dy, in.mask, size, in.settings);
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(3);
    if (grads[0].defined()) {
      const Saved s = saved(ctx);
      out[0] = call_tangent(grads[0], s.mask, s.settings);
    }
    return out;
  }
};

struct FilteredLrelu : torch::autograd::Function<FilteredLrelu> {
  static variable_list forward(
      AutogradContext* ctx, const Tensor& x, const OptionalTensor& b, const FilterSettings& s, const std::optional<double>& clamp) {
    ctx->set_materialize_grads(false);
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [y, mask] = call_forward(x, b, s, clamp, true);
    ctx->mark_non_differentiable({mask});
    save(ctx, mask, s);
    ctx->saved_data["height"] = x.sym_size(2);
    ctx->saved_data["width"] = x.sym_size(3);
    if (b) {
      ctx->saved_data["bias"] = b->scalar_type();
    }
    return {y, mask};
  }

  static variable_list backward(AutogradContext* ctx, const variable_list& grads) {
    variable_list out(4);
    if (!grads[0].defined()) {
      return out;
    }
    const Saved s = saved(ctx);
    const std::array<c10::SymInt, 2> size = {ctx->saved_data["height"].toSymInt(), ctx->saved_data["width"].toSymInt()};
    const Tensor dx = call_backward(grads[0], s.mask, size, s.settings);
    if (ctx->needs_input_grad(0)) {
      out[0] = dx;
    }
    if (ctx->saved_data.count("bias") != 0 && ctx->needs_input_grad(1)) {
      out[1] = dx.sum({0, 2, 3}, false, accumulate_type(dx.scalar_type())).to(ctx->saved_data["bias"].toScalarType());
    }
    return out;
  }
};

Result forward_autograd(
    const Tensor& x, const OptionalTensor& fu, const OptionalTensor& fd, const OptionalTensor& b, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, std::optional<double> clamp, bool flip_filter, bool with_mask) {
  const FilterSettings s = settings(fu, fd, up, down, padding, gain, slope, flip_filter);
  if (!at::GradMode::is_enabled() || !(x.requires_grad() || (b && b->requires_grad()))) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    return call_forward(x, b, s, clamp, with_mask);
  }
  variable_list out = FilteredLrelu::apply(x, b, s, clamp);
  return {std::move(out[0]), std::move(out[1])};
}

Tensor backward_autograd(
    const Tensor& dy, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, c10::SymIntArrayRef size, int64_t up,
    int64_t down, at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  return FilteredLreluBackward::apply(dy, Saved{mask, settings(fu, fd, up, down, padding, gain, slope, flip_filter)}, size);
}

Tensor tangent_autograd(
    const Tensor& v, const OptionalTensor& fu, const OptionalTensor& fd, const Tensor& mask, int64_t up, int64_t down,
    at::IntArrayRef padding, double gain, double slope, bool flip_filter) {
  return FilteredLreluTangent::apply(v, Saved{mask, settings(fu, fd, up, down, padding, gain, slope, flip_filter)});
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "filtered_lrelu(Tensor x, Tensor? fu, Tensor? fd, Tensor? b, int up, int down, int[] padding, float gain, float slope, "
      "float? clamp, bool flip_filter, bool with_mask) -> (Tensor y, Tensor mask)");
  m.def(
      "filtered_lrelu_backward(Tensor dy, Tensor? fu, Tensor? fd, Tensor mask, SymInt[] size, int up, int down, int[] padding, "
      "float gain, float slope, bool flip_filter) -> Tensor");
  m.def(
      "filtered_lrelu_tangent(Tensor v, Tensor? fu, Tensor? fd, Tensor mask, int up, int down, int[] padding, float gain, "
      "float slope, bool flip_filter) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("filtered_lrelu", &forward_cpu);
  m.impl("filtered_lrelu_backward", &backward_cpu);
  m.impl("filtered_lrelu_tangent", &tangent_cpu);
}

TORCH_LIBRARY_IMPL(gan_fast, Meta, m) {
  m.impl("filtered_lrelu", &forward_meta);
  m.impl("filtered_lrelu_backward", &backward_meta);
  m.impl("filtered_lrelu_tangent", &tangent_meta);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("filtered_lrelu", &forward_autograd);
  m.impl("filtered_lrelu_backward", &backward_autograd);
  m.impl("filtered_lrelu_tangent", &tangent_autograd);
}

}  // namespace gan_fast
