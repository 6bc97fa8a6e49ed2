// The ops of modulated convolution on the CPU: Winograd's kernels, which apply style and demodulation as they read and
// the rest of the layer as they write, or the reference: torch's convolution between two elementwise passes.
// `ops.modulated_conv2d` calls them only where it expects the first (`winograd_layer_limits`): the second is slower than
// what it composes.

#include <ATen/Parallel.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <algorithm>
#include <tuple>

#include "common/host.h"
#include "common/huge_pages.h"
#include "convolution/winograd_host.h"
#include "modulated_convolution/epilogue_gradient.h"
#include "modulated_convolution/modulated_convolution_checks.h"

namespace gan_fast {
namespace {

using namespace modulated_convolution;
using Triple = std::tuple<Tensor, Tensor, Tensor>;

bool are_readable(std::initializer_list<OptionalTensor> tensors) {
  bool all = true;
  for (const OptionalTensor& t : tensors) {
    if (t.has_value() && t->defined()) {
      TORCH_CHECK(
          !t->has_storage() || t->unsafeGetTensorImpl()->storage_initialized(),
          "modulated_convolution got a tensor of shape ", t->sizes(), " whose memory is not allocated");
      all = all && is_readable(*t);
    }
  }
  return all;
}

Tensor given(const OptionalTensor& t) {
  return t.has_value() ? *t : Tensor();
}

// The op's results by what gan_fast/_library.py registers for devices without a kernel.
template <class... Arguments>
torch::jit::Stack by_reference(const char* name, const Arguments&... arguments) {
  torch::jit::Stack stack;
  torch::jit::push(stack, arguments...);
  c10::Dispatcher::singleton().findSchemaOrThrow(name, "").callBoxedForDispatchKey(
      c10::DispatchKey::CompositeExplicitAutograd, stack);
  return stack;
}

Tensor forward(
    const Tensor& x, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& noise,
    const OptionalTensor& bias, int64_t padding, int64_t act, double alpha, double gain, double clamp) {
  check_forward(x, w, s, d, noise, bias, padding, act, gain);
  if (are_readable({x, w, s, d, noise, bias}) && winograd_layer_serves(x, w, padding)) {
    return winograd_layer(x, w, given(s), given(d), given(noise), given(bias), padding, {act, alpha, gain, clamp});
  }
  return by_reference("gan_fast::modulated_convolution", x, w, s, d, noise, bias, padding, act, alpha, gain, clamp)
      .at(0)
      .toTensor();
}

std::tuple<Tensor, Tensor> input_gradient(
    const Tensor& dz, const Tensor& w, const OptionalTensor& s, const OptionalTensor& d, const OptionalTensor& x,
    int64_t padding) {
  check_input_gradient(dz, w, s, d, x, padding);
  if (are_readable({dz, w, s, d, x}) && winograd_layer_serves(dz, w.transpose(0, 1), 2 - padding) &&
      (!given(x).defined() || x->scalar_type() == dz.scalar_type())) {
    auto [dx, ds] = winograd_layer_input_gradient(dz, w, given(s), given(d), given(x), padding);
    return {std::move(dx), std::move(ds)};
  }
  const auto found = by_reference("gan_fast::modulated_convolution_input_gradient", dz, w, s, d, x, padding);
  return {found.at(0).toTensor(), found.at(1).toTensor()};
}

Tensor weight_gradient(
    const Tensor& dz, const Tensor& x, const OptionalTensor& s, const OptionalTensor& d, int64_t size,
    int64_t padding) {
  check_weight_gradient(dz, x, s, d, size, padding);
  const Tensor like = at::empty({dz.size(1), x.size(1), size, size}, x.options());
  if (are_readable({dz, x, s, d}) && dz.scalar_type() == x.scalar_type() && winograd_layer_serves(x, like, padding)) {
    return winograd_layer_weight_gradient(dz, x, given(s), given(d), padding);
  }
  return by_reference("gan_fast::modulated_convolution_weight_gradient", dz, x, s, d, size, padding).at(0).toTensor();
}

Triple epilogue_gradient(
    const Tensor& dy, const Tensor& y, const OptionalTensor& noise, int64_t act, double alpha, double gain,
    double clamp) {
  check_epilogue_gradient(dy, y, noise, act, gain);
  if (!are_readable({dy, y, noise}) || y.numel() == 0 || dy.scalar_type() != y.scalar_type() ||
      y.scalar_type() == at::kHalf || winograd_mode() == "never") {
    const auto found =
        by_reference("gan_fast::modulated_convolution_epilogue_gradient", dy, y, noise, act, alpha, gain, clamp);
    return {found.at(0).toTensor(), found.at(1).toTensor(), found.at(2).toTensor()};
  }
  const winograd::Storage storage = winograd_storage(y);
  const at::ScalarType type = accumulate_type(y.scalar_type());
  const int64_t images = y.size(0), channels = y.size(1), pixels = y.size(2) * y.size(3);
  const at::MemoryFormat order = y.suggest_memory_format();
  const bool planes = order == at::MemoryFormat::Contiguous;
  const int64_t parts = planes ? 1 : (pixels + kPart - 1) / kPart;
  const Tensor from_dy = dy.contiguous(order), from_y = y.contiguous(order);
  const Tensor n = noise.has_value() ? noise->to(type).contiguous() : Tensor();
  const Tensor dz = in_huge_pages(at::empty(y.sizes(), y.options(), order));
  const Tensor sums = at::empty({images, parts, 2, channels}, y.options().dtype(type));
  winograd::Epilogue epilogue;
  if (n.defined()) {
    epilogue.noise = n.const_data_ptr();
    epilogue.noise_stride = n.size(0) > 1 ? pixels : 0;
  }
  epilogue.act = static_cast<int>(act);
  epilogue.alpha = alpha;
  epilogue.gain = gain;
  epilogue.clamp = clamp;
  const double bound = clamp >= 0 ? at::scalar_tensor(clamp, y.options()).item<double>() : clamp;
  const EpilogueGradient job{
      from_dy.const_data_ptr(), from_y.const_data_ptr(), dz.mutable_data_ptr(), sums.mutable_data_ptr(), pixels,
      channels, planes, epilogue, bound};
  at::parallel_for(0, images * (planes ? channels : parts), 1, [&](int64_t begin, int64_t end) {
    modulated_epilogue_gradient_kernel()(storage, job, begin, end);
  });
  const Tensor total = sums.sum(1);
  return {dz, total.select(1, 0).contiguous(), total.select(1, 1).contiguous()};
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CPU, m) {
  m.impl("modulated_convolution", &forward);
  m.impl("modulated_convolution_input_gradient", &input_gradient);
  m.impl("modulated_convolution_weight_gradient", &weight_gradient);
  m.impl("modulated_convolution_epilogue_gradient", &epilogue_gradient);
}

}  // namespace gan_fast
