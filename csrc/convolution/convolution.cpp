// Convolution in one to three dimensions, transposed or not, grouped or not: schemas, autograd to any order.
//
//   convolution(x, w, bias, ...) -> y                      y = A(x; w) + bias
//   convolution_input_gradient(dy, x, w, ...) -> dx        the adjoint of A in x; of x the shape and order are read
//   convolution_weight_gradient(dy, x, w, ...) -> dw       the adjoint of A in w; of w the shape and order are read
//
// The products themselves are the backend's (oneDNN, cuDNN, ...), on any device; on the CPU some are Winograd's
// (`winograd.h`), where those are measured to be faster. What is here is their calculus:
// `common/bilinear.h`. aten's double backward loops over the groups, and computes weight gradients and products with
// zeros that nobody asked for.

#include <torch/library.h>

#include "common/bilinear.h"
#include "convolution/convolution_host.h"
#include "convolution/winograd_host.h"

namespace gan_fast {
namespace {

using at::IntArrayRef;
using OptionalTensor = std::optional<Tensor>;

struct Geometry : torch::CustomClassHolder {
  std::vector<int64_t> stride, padding, dilation, output_padding;
  bool transposed;
  int64_t groups;

  Geometry(IntArrayRef s, IntArrayRef p, IntArrayRef d, bool t, IntArrayRef o, int64_t g)
      : stride(s.vec()), padding(p.vec()), dilation(d.vec()), output_padding(o.vec()), transposed(t), groups(g) {}
};

using GeometryPtr = c10::intrusive_ptr<Geometry>;

using Forward = Tensor(
    const Tensor&, const Tensor&, const OptionalTensor&, IntArrayRef, IntArrayRef, IntArrayRef, bool, IntArrayRef,
    int64_t);
using Gradient = Tensor(
    const Tensor&, const Tensor&, const Tensor&, IntArrayRef, IntArrayRef, IntArrayRef, bool, IntArrayRef, int64_t);

struct Convolution {
  using Config = Geometry;

  static Tensor forward(const Tensor& x, const Tensor& w, const OptionalTensor& bias, const GeometryPtr& g) {
    static const auto op = find_op<Forward>("gan_fast::convolution");
    return op.call(x, w, bias, g->stride, g->padding, g->dilation, g->transposed, g->output_padding, g->groups);
  }

  static Tensor input_gradient(const Tensor& dy, const Tensor& x, const Tensor& w, const GeometryPtr& g) {
    static const auto op = find_op<Gradient>("gan_fast::convolution_input_gradient");
    return op.call(dy, x, w, g->stride, g->padding, g->dilation, g->transposed, g->output_padding, g->groups);
  }

  // Undefined, which is no gradient, where the caller has switched them off for now.
  static Tensor weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& w, const GeometryPtr& g) {
    if (!convolution_weight_gradients && !flows_beyond_kernels(w)) {
      return {};
    }
    static const auto op = find_op<Gradient>("gan_fast::convolution_weight_gradient");
    return op.call(dy, x, w, g->stride, g->padding, g->dilation, g->transposed, g->output_padding, g->groups);
  }

  static Tensor bias_gradient(const Tensor& dy) {
    std::vector<int64_t> all_but_channels{0};
    for (int64_t d = 2; d < dy.dim(); ++d) {
      all_but_channels.push_back(d);
    }
    return dy.sum(all_but_channels);
  }
};

// Whether a bias is one that Winograd's kernels add.
bool fits(const OptionalTensor& bias, const Tensor& x, int64_t channels) {
  return !bias.has_value() || !bias->defined() ||
      (bias->scalar_type() == x.scalar_type() && bias->dim() == 1 && bias->size(0) == channels && is_readable(*bias));
}

Tensor forward(
    const Tensor& x, const Tensor& w, const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  const WinogradGeometry g{stride, padding, dilation, output_padding, transposed, groups};
  if (winograd_serves(WinogradProduct::Output, x, x, w, g) && fits(bias, x, w.size(transposed ? 1 : 0))) {
    return winograd_output(x, w, bias, g);
  }
  return at::convolution(x, w, bias, stride, padding, dilation, transposed, output_padding, groups);
}

Tensor input_gradient(
    const Tensor& dy, const Tensor& x, const Tensor& w, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
    bool transposed, IntArrayRef output_padding, int64_t groups) {
  const WinogradGeometry g{stride, padding, dilation, output_padding, transposed, groups};
  if (winograd_serves(WinogradProduct::InputGradient, dy, x, w, g)) {
    return winograd_input_gradient(dy, x, w, g);
  }
  return std::get<0>(at::convolution_backward(
      dy, x, w, at::OptionalIntArrayRef(), stride, padding, dilation, transposed, output_padding, groups,
      {true, false, false}));
}

Tensor weight_gradient(
    const Tensor& dy, const Tensor& x, const Tensor& w, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
    bool transposed, IntArrayRef output_padding, int64_t groups) {
  const WinogradGeometry g{stride, padding, dilation, output_padding, transposed, groups};
  if (winograd_serves(WinogradProduct::WeightGradient, dy, x, w, g)) {
    return winograd_weight_gradient(dy, x, w, g);
  }
  return std::get<1>(at::convolution_backward(
      dy, x, w, at::OptionalIntArrayRef(), stride, padding, dilation, transposed, output_padding, groups,
      {false, true, false}));
}

Tensor forward_autograd(
    const Tensor& x, const Tensor& w, const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  return Bilinear<Convolution>::apply(
      x, w, bias, c10::make_intrusive<Geometry>(stride, padding, dilation, transposed, output_padding, groups));
}

Tensor input_gradient_autograd(
    const Tensor& dy, const Tensor& x, const Tensor& w, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
    bool transposed, IntArrayRef output_padding, int64_t groups) {
  return BilinearInputGradient<Convolution>::apply(
      dy, w, Like{x}, c10::make_intrusive<Geometry>(stride, padding, dilation, transposed, output_padding, groups),
      DebtPtr());
}

Tensor weight_gradient_autograd(
    const Tensor& dy, const Tensor& x, const Tensor& w, IntArrayRef stride, IntArrayRef padding, IntArrayRef dilation,
    bool transposed, IntArrayRef output_padding, int64_t groups) {
  return BilinearWeightGradient<Convolution>::apply(
      dy, x, Like{w}, c10::make_intrusive<Geometry>(stride, padding, dilation, transposed, output_padding, groups));
}

template <c10::DeviceType kDevice>
Tensor forward_autocast(
    const Tensor& x, const Tensor& w, const OptionalTensor& bias, IntArrayRef stride, IntArrayRef padding,
    IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  const WithoutAutocast plain;
  const OptionalTensor b = bias.has_value() && bias->defined() ? OptionalTensor(narrow<kDevice>(*bias)) : bias;
  static const auto op = find_op<Forward>("gan_fast::convolution");
  return op.call(
      narrow<kDevice>(x), narrow<kDevice>(w), b, stride, padding, dilation, transposed, output_padding, groups);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def(
      "convolution(Tensor x, Tensor w, Tensor? bias, int[] stride, int[] padding, int[] dilation, bool transposed, "
      "int[] output_padding, int groups) -> Tensor");
  m.def(
      "convolution_input_gradient(Tensor dy, Tensor x, Tensor w, int[] stride, int[] padding, int[] dilation, "
      "bool transposed, int[] output_padding, int groups) -> Tensor");
  m.def(
      "convolution_weight_gradient(Tensor dy, Tensor x, Tensor w, int[] stride, int[] padding, int[] dilation, "
      "bool transposed, int[] output_padding, int groups) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CompositeExplicitAutograd, m) {
  m.impl("convolution", &forward);
  m.impl("convolution_input_gradient", &input_gradient);
  m.impl("convolution_weight_gradient", &weight_gradient);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("convolution", &forward_autograd);
  m.impl("convolution_input_gradient", &input_gradient_autograd);
  m.impl("convolution_weight_gradient", &weight_gradient_autograd);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCPU, m) {
  m.impl("convolution", &forward_autocast<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCUDA, m) {
  m.impl("convolution", &forward_autocast<c10::DeviceType::CUDA>);
}

}  // namespace gan_fast
