#include "bias_act/bias_act_host.h"

#include "common/huge_pages.h"

namespace gan_fast {
namespace {

Tensor defined_or_none(const OptionalTensor& t) {
  return t.has_value() ? *t : Tensor();
}

bool same_sizes(c10::SymIntArrayRef a, c10::SymIntArrayRef b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

bool is_noise_of(c10::SymIntArrayRef noise, c10::SymIntArrayRef x) {
  const size_t spatial = x.size() - 2;
  if (x.size() < 3 || (noise.size() != spatial && noise.size() != x.size())) {
    return false;
  }
  const bool batched = noise.size() == x.size();
  if (!same_sizes(noise.slice(batched ? 2 : 0), x.slice(2))) {
    return false;
  }
  // a batch that a tracer does not know is compared with itself alone
  return !batched || (noise[1] == 1 && (TORCH_GUARD_OR_FALSE(noise[0].sym_eq(1)) || noise[0] == x[0]));
}

int64_t product(at::IntArrayRef sizes, int64_t first, int64_t last) {
  int64_t n = 1;
  for (int64_t d = first; d < last; ++d) {
    n *= sizes[d];
  }
  return n;
}

at::MemoryFormat channels_last_of(const Tensor& x) {
  return x.dim() == 4 ? at::MemoryFormat::ChannelsLast
      : x.dim() == 5  ? at::MemoryFormat::ChannelsLast3d
                      : at::MemoryFormat::Contiguous;
}

}  // namespace

BiasActCall::BiasActCall(
    const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp)
    : x(defined_or_none(x)), y(defined_or_none(y)), b(defined_or_none(b)), scale(defined_or_none(scale)),
      noise(defined_or_none(noise)), dim(dim), numbers{static_cast<int>(act), alpha, gain, clamp} {}

void check_bias_act(const Tensor& like, BiasActCall& call) {
  storage_code(like.scalar_type());
  const int64_t rank = like.dim();
  TORCH_CHECK_VALUE(
      call.dim >= -rank && call.dim < rank, "bias_act got dim ", call.dim, " for x of shape ", like.sym_sizes(),
      "; expected a dimension that x has");
  call.dim += call.dim < 0 ? rank : 0;
  TORCH_CHECK_VALUE(
      call.numbers.act >= 0 && call.numbers.act <= static_cast<int>(Activation::Swish), "bias_act got activation ",
      call.numbers.act, "; expected 0 to 8");
  if (call.b.defined()) {
    storage_code(call.b.scalar_type());
    TORCH_CHECK_VALUE(
        call.b.dim() == 1 && call.b.sym_size(0) == like.sym_size(call.dim), "bias_act got b of shape ", call.b.sym_sizes(),
        "; expected [", like.sym_size(call.dim), "], the size of dim ", call.dim, " of x ", like.sym_sizes());
  }
  TORCH_CHECK_VALUE(
      (!call.scale.defined() && !call.noise.defined()) || (rank >= 2 && call.dim == 1), "bias_act got scale or noise with dim ",
      call.dim, " and x of shape ", like.sym_sizes(), "; expected dim 1 and x [N, C, ...]");
  if (call.scale.defined()) {
    storage_code(call.scale.scalar_type());
    TORCH_CHECK_VALUE(
        same_sizes(call.scale.sym_sizes(), like.sym_sizes().slice(0, 2)), "bias_act got scale of shape ", call.scale.sym_sizes(),
        "; expected ", like.sym_sizes().slice(0, 2), ", [N, C] of x ", like.sym_sizes());
  }
  if (call.noise.defined()) {
    storage_code(call.noise.scalar_type());
    TORCH_CHECK_VALUE(
        is_noise_of(call.noise.sym_sizes(), like.sym_sizes()), "bias_act got noise of shape ", call.noise.sym_sizes(),
        "; expected [N or 1, 1, H, W] or [H, W] of x ", like.sym_sizes());
  }
}

void check_bias_act_backward(const Tensor& dy, BiasActCall& call, bool reads_x) {
  check_bias_act(dy, call);
  TORCH_CHECK_VALUE(
      call.x.defined() || !(reads_x || reads_input(call.numbers)), "the backward of bias_act reads x here, but got none");
  TORCH_CHECK_VALUE(
      call.y.defined() || !reads_result(call.numbers), "the backward of bias_act reads its result y here, but got none");
  for (const Tensor& t : {call.x, call.y}) {
    TORCH_CHECK_VALUE(
        !t.defined() || (same_sizes(t.sym_sizes(), dy.sym_sizes()) && t.scalar_type() == dy.scalar_type()),
        "the backward of bias_act got dy ", name_of(dy.scalar_type()), " ", dy.sym_sizes(), " with x or y ",
        t.defined() ? name_of(t.scalar_type()) : "", " ", t.defined() ? t.sym_sizes() : dy.sym_sizes(), "; expected the same");
  }
}

void check_cotangents(const std::array<Tensor, 4>& cotangents, const Tensor& dy, const BiasActCall& call) {
  const std::array<const Tensor*, 4> of = {&dy, &call.b, &call.scale, &call.noise};
  for (size_t i = 0; i < of.size(); ++i) {
    const Tensor& t = cotangents[i];
    TORCH_CHECK_VALUE(
        !t.defined() || (of[i]->defined() && same_sizes(t.sym_sizes(), of[i]->sym_sizes())),
        "the double backward of bias_act got a cotangent of ", std::array{"dx", "db", "dscale", "dnoise"}[i],
        " that is not shaped like it");
  }
  TORCH_CHECK_VALUE(
      !cotangents[0].defined() || cotangents[0].scalar_type() == dy.scalar_type(),
      "the double backward of bias_act got a cotangent of dx in another dtype than dy");
}

BiasActView::BiasActView(const Tensor& like, int64_t dim, bool by_channel, bool by_sample)
    : planar(true), samples(1), channels(1), pixels(like.numel()) {
  if (!by_channel && !by_sample) {
    model = dense(like);
    return;
  }
  samples = product(like.sizes(), 0, dim);
  channels = like.size(dim);
  pixels = product(like.sizes(), dim + 1, like.dim());
  at::MemoryFormat format = at::MemoryFormat::Contiguous;
  if (dim == 1 && pixels > 1 && !like.is_contiguous() && like.is_contiguous(channels_last_of(like))) {
    format = channels_last_of(like);
  }
  planar = pixels > 1 && format == at::MemoryFormat::Contiguous;
  if (!planar && !by_sample) {
    pixels *= samples;
    samples = 1;
  }
  model = like.contiguous(format);
}

Tensor BiasActView::ordered(const Tensor& x) const {
  if (!x.defined()) {
    return x;
  }
  if (x.strides() == model.strides()) {
    return x;
  }
  if (model.is_contiguous()) {
    return x.contiguous();
  }
  const at::MemoryFormat format = channels_last_of(model);
  return model.is_contiguous(format) ? x.contiguous(format) : laid_out_as(x, model);
}

BiasActTarget::BiasActTarget(const BiasActView& view, const Tensor& like) : result(in_huge_pages(at::empty_like(like))) {
  memory = view.ordered(result).is_same(result) ? result : in_huge_pages(at::empty_like(view.model));
}

Tensor BiasActTarget::finish(const Tensor& otherwise) const {
  if (!result.defined()) {
    return otherwise;
  }
  return memory.is_same(result) ? result : result.copy_(memory);
}

BiasActPass::BiasActPass(int order, const Tensor& like, const BiasActCall& call, bool by_channel, bool by_sample)
    : order(order), like(like), view(like, call.dim, by_channel, by_sample),
      wide(like.options().dtype(accumulate_type(like.scalar_type())).memory_format(std::nullopt)) {
  scale = of_channels(call.scale, 1);
  bias = of_channels(call.b, 0);
  noise = of_pixels(call.noise);
}

BiasActParameter BiasActPass::of_channels(const Tensor& v, double otherwise) const {
  if (!v.defined()) {
    return {at::full({view.channels}, otherwise, wide), 0};
  }
  return {v.to(wide.dtype().toScalarType()).contiguous(), v.dim() == 2 ? view.channels : 0};
}

BiasActParameter BiasActPass::of_pixels(const Tensor& v) const {
  if (!v.defined()) {
    return {};
  }
  const bool shared = v.dim() != like.dim() || (v.size(0) == 1 && view.samples != 1);
  return {v.to(wide.dtype().toScalarType()).contiguous(), shared ? 0 : view.pixels};
}

BiasActPass BiasActPass::forward(const BiasActCall& call) {
  const bool by_sample = call.scale.defined() || call.noise.defined();
  BiasActPass pass(0, call.x, call, call.b.defined(), by_sample);
  pass.v = pass.view.model;
  pass.out = BiasActTarget(pass.view, call.x);
  return pass;
}

BiasActPass BiasActPass::backward(const Tensor& dy, const BiasActCall& call, const std::array<bool, 4>& wanted, bool in_place) {
  const bool by_sample = call.scale.defined() || call.noise.defined();
  BiasActPass pass(1, call.like(dy), call, call.b.defined(), by_sample);
  pass.v = pass.view.ordered(dy);
  pass.x = pass.view.ordered(call.x);
  pass.y = pass.view.ordered(call.y);
  if (in_place) {
    pass.out.result = dy;
    pass.out.memory = pass.v.is_same(dy) && dy.is_non_overlapping_and_dense() ? dy : at::empty_like(pass.view.model);
  } else if (wanted[0]) {
    pass.out = BiasActTarget(pass.view, pass.like);
  }
  return pass;
}

BiasActPass BiasActPass::double_backward(
    const std::array<Tensor, 4>& cotangents, const Tensor& dy, const BiasActCall& call, const std::array<bool, 5>& wanted) {
  const auto& [tx, tb, tscale, tnoise] = cotangents;
  const bool by_sample = call.scale.defined() || call.noise.defined();
  BiasActPass pass(2, call.like(dy), call, call.b.defined(), by_sample);
  pass.v = pass.view.ordered(dy);
  pass.x = pass.view.ordered(call.x);
  pass.y = pass.view.ordered(call.y);
  pass.t = pass.view.ordered(tx);
  pass.tscale = pass.of_channels(tscale, 0);
  pass.tbias = pass.of_channels(tb, 0);
  pass.tnoise = pass.of_pixels(tnoise);
  pass.reads_tscale = tscale.defined();
  if (wanted[0]) {
    pass.out = BiasActTarget(pass.view, pass.like);
  }
  if (wanted[1]) {
    pass.out2 = BiasActTarget(pass.view, pass.like);
  }
  return pass;
}

}  // namespace gan_fast
