// bias_act on CUDA: one launch a pass, and where parameters have gradients one small sum each over the tiles' sums.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include <cstdint>

#include "bias_act/bias_act_arguments.h"
#include "bias_act/bias_act_host.h"
#include "common/cuda/map_reduce_host.h"

namespace gan_fast {
namespace {

using Three = std::array<bool, 3>;

// One for each pass and layout.
cuda::KernelFamily& family(int order, bool planar) {
  static cuda::KernelFamily families[3][2] = {
      {{"bias_act", "bias_act_forward_interleaved"}, {"bias_act", "bias_act_forward_planar"}},
      {{"bias_act", "bias_act_backward_interleaved"}, {"bias_act", "bias_act_backward_planar"}},
      {{"bias_act", "bias_act_double_backward_interleaved"}, {"bias_act", "bias_act_double_backward_planar"}}};
  return families[order][planar];
}

const void* pointer(const Tensor& t) {
  return t.defined() ? t.const_data_ptr() : nullptr;
}

bool aligned(const void* p) {
  return reinterpret_cast<std::uintptr_t>(p) % 16 == 0;
}

long long parts(long long whole, long long part) {
  return (whole + part - 1) / part;
}

// How units are cut; the pointers must be there.
void share(cuda::BiasActArguments& a, bool planar, int element_size, bool wants_noise) {
  const int in_packet = 16 / element_size;
  const long long along = planar ? a.pixels : a.channels;
  a.vector = along % in_packet == 0;
  for (const void* p : {a.v, a.x, a.y, a.t, static_cast<const void*>(a.out), static_cast<const void*>(a.out2)}) {
    a.vector = a.vector && aligned(p);
  }
  const int packet = a.vector ? in_packet : 1;
  a.lanes = 32;
  a.group = 1;
  if (planar) {
    // Eight packets a lane make the sums over a warp cheap; a gradient of the noise has room for one.
    a.tile = 32 * packet * (wants_noise ? 1 : 8);
    a.group = wants_noise ? 32 : 1;
  } else {
    while (a.lanes > 1 && a.lanes / 2 * packet >= a.channels) {
      a.lanes /= 2;
    }
    a.tile = 32 * (32 / a.lanes);
  }
  a.tiles = parts(a.pixels, a.tile);
  a.groups = parts(a.channels, a.group);
  a.strips = parts(a.channels, static_cast<long long>(a.lanes) * packet);
}

// Runs the pass and returns db, dscale, dnoise where wanted.
std::array<Tensor, 3> run(const BiasActPass& pass, const BiasActCall& call, const Three& wanted) {
  const BiasActView& view = pass.view;
  const at::ScalarType storage = pass.like.scalar_type();
  cuda::BiasActArguments a{};
  a.numbers = call.numbers;
  const double bound = bound_of(call.numbers);
  a.stored_bound = at::scalar_tensor(bound, at::TensorOptions().dtype(storage)).item<double>();  // on the CPU: no sync
  a.samples = view.samples;
  a.channels = view.channels;
  a.pixels = view.pixels;
  a.v = pointer(pass.v);
  a.x = pass.order == 0 ? nullptr : pointer(pass.x);
  a.y = pointer(pass.y);
  a.t = pointer(pass.t);
  a.out = pass.out.pointer();
  a.out2 = pass.out2.pointer();
  a.scale = pass.scale.pointer();
  a.bias = pass.bias.pointer();
  a.noise = pass.order == 0 || reads_input(call.numbers) ? pass.noise.pointer() : nullptr;
  a.tscale = pass.tscale.pointer();
  a.tbias = pass.tbias.pointer();
  a.tnoise = pass.tnoise.pointer();
  a.scale_stride = pass.scale.stride;
  a.noise_stride = pass.noise.stride;
  a.tscale_stride = pass.tscale.stride;
  a.tnoise_stride = pass.tnoise.stride;
  share(a, view.planar, static_cast<int>(c10::elementSize(storage)), wanted[2]);

  const std::vector<int64_t> by_tile = view.planar ? std::vector<int64_t>{a.samples, a.channels, a.tiles}
                                                   : std::vector<int64_t>{a.samples, a.tiles, a.channels};
  Tensor sums = wanted[0] ? at::empty(by_tile, pass.wide) : Tensor(), scale_sums = wanted[1] ? at::empty(by_tile, pass.wide) : Tensor();
  Tensor noise_sums = wanted[2] ? at::empty({a.samples, view.planar ? a.groups : a.strips, a.pixels}, pass.wide) : Tensor();
  const auto target = [](const Tensor& t) { return t.defined() ? t.mutable_data_ptr() : nullptr; };
  a.sums = target(sums);
  a.scale_sums = target(scale_sums);
  a.noise_sums = target(noise_sums);
  const long long units = a.samples * a.tiles * (view.planar ? a.groups : a.strips);
  if (units > 0) {
    const auto blocks = static_cast<unsigned>(parts(units, cuda::kBiasActWarps));
    family(pass.order, view.planar).of(storage).launch(pass.like.device(), {blocks}, cuda::kBiasActThreads, a);
  }

  std::array<Tensor, 3> gradients;
  const int64_t tiles_at = view.planar ? 2 : 1;
  if (wanted[0]) {
    gradients[0] = sums.sum(at::IntArrayRef{0, tiles_at}).to(call.b.scalar_type());
  }
  if (wanted[1]) {
    gradients[1] = scale_sums.sum(tiles_at).to(call.scale.scalar_type());
  }
  if (wanted[2]) {
    const bool shared = call.noise.numel() != a.samples * a.pixels;
    const bool summed = !shared && noise_sums.size(1) == 1;
    const Tensor total = summed ? noise_sums : shared ? noise_sums.sum(at::IntArrayRef{0, 1}) : noise_sums.sum(1);
    gradients[2] = total.reshape(call.noise.sizes()).to(call.noise.scalar_type());
  }
  return gradients;
}

Tensor or_nothing(Tensor t, const Tensor& dy) {
  return t.defined() ? std::move(t) : at::empty({0}, dy.options().memory_format(std::nullopt));
}

Tensor forward_cuda(
    const Tensor& x, const OptionalTensor& b, const OptionalTensor& scale, const OptionalTensor& noise, int64_t dim, int64_t act,
    double alpha, double gain, double clamp) {
  BiasActCall call(x, {}, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act(x, call);
  const c10::DeviceGuard guard(x.device());
  const BiasActPass pass = BiasActPass::forward(call);
  run(pass, call, {});
  return pass.out.finish(x);
}

FourTensors backward_cuda(
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, std::array<bool, 4> wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, wanted[2]);
  const c10::DeviceGuard guard(dy.device());
  const BiasActPass pass = BiasActPass::backward(dy, call, wanted);
  auto [db, dscale, dnoise] = run(pass, call, {wanted[1], wanted[2], wanted[3]});
  return {pass.out.finish(or_nothing({}, dy)), or_nothing(db, dy), or_nothing(dscale, dy), or_nothing(dnoise, dy)};
}

ThreeTensors backward_in_place_cuda(
    Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, std::array<bool, 4> wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  check_bias_act_backward(dy, call, wanted[2]);
  const c10::DeviceGuard guard(dy.device());
  const BiasActPass pass = BiasActPass::backward(dy, call, wanted, true);
  auto [db, dscale, dnoise] = run(pass, call, {wanted[1], wanted[2], wanted[3]});
  pass.out.finish(dy);
  return {or_nothing(db, dy), or_nothing(dscale, dy), or_nothing(dnoise, dy)};
}

FiveTensors double_backward_cuda(
    const OptionalTensor& tx, const OptionalTensor& tb, const OptionalTensor& tscale, const OptionalTensor& tnoise,
    const Tensor& dy, const OptionalTensor& x, const OptionalTensor& y, const OptionalTensor& b, const OptionalTensor& scale,
    const OptionalTensor& noise, int64_t dim, int64_t act, double alpha, double gain, double clamp, std::array<bool, 5> wanted) {
  BiasActCall call(x, y, b, scale, noise, dim, act, alpha, gain, clamp);
  const std::array<Tensor, 4> t = {tx.value_or(Tensor()), tb.value_or(Tensor()), tscale.value_or(Tensor()), tnoise.value_or(Tensor())};
  check_bias_act_backward(dy, call, t[2].defined());
  check_cotangents(t, dy, call);
  const c10::DeviceGuard guard(dy.device());
  const BiasActPass pass = BiasActPass::double_backward(t, dy, call, wanted);
  auto [db, dscale, dnoise] = run(pass, call, {wanted[2], wanted[3], wanted[4]});
  return {
      pass.out.finish(or_nothing({}, dy)), pass.out2.finish(or_nothing({}, dy)), or_nothing(db, dy), or_nothing(dscale, dy),
      or_nothing(dnoise, dy)};
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("bias_act", &forward_cuda);
  m.impl("bias_act_backward", &backward_cuda);
  m.impl("bias_act_backward_", &backward_in_place_cuda);
  m.impl("bias_act_double_backward", &double_backward_cuda);
}

}  // namespace gan_fast
