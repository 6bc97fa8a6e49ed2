// A linear layer: schemas, autograd to any order.
//
//   linear(x, w, bias) -> y = x w^T + bias                   x [..., I], w [O, I]
//   linear_input_gradient(dy, x, w) -> dx = dy w             of x the shape is read
//   linear_weight_gradient(dy, x, w) -> dw = dy^T x          summed over the leading dimensions
//
// Its calculus is that of every bilinear layer: `common/bilinear.h`.

#include <torch/library.h>

#include "common/bilinear.h"

namespace gan_fast {
namespace {

using OptionalTensor = std::optional<Tensor>;

struct NoGeometry : torch::CustomClassHolder {};
using NoGeometryPtr = c10::intrusive_ptr<NoGeometry>;

using Forward = Tensor(const Tensor&, const Tensor&, const OptionalTensor&);
using Gradient = Tensor(const Tensor&, const Tensor&, const Tensor&);

Tensor rows(const Tensor& x) {
  return x.dim() == 2 ? x : x.flatten(0, -2);
}

struct Linear {
  using Config = NoGeometry;

  static Tensor forward(const Tensor& x, const Tensor& w, const OptionalTensor& bias, const NoGeometryPtr&) {
    static const auto op = find_op<Forward>("gan_fast::linear");
    return op.call(x, w, bias);
  }

  static Tensor input_gradient(const Tensor& dy, const Tensor& x, const Tensor& w, const NoGeometryPtr&) {
    static const auto op = find_op<Gradient>("gan_fast::linear_input_gradient");
    return op.call(dy, x, w);
  }

  static Tensor weight_gradient(const Tensor& dy, const Tensor& x, const Tensor& w, const NoGeometryPtr&) {
    static const auto op = find_op<Gradient>("gan_fast::linear_weight_gradient");
    return op.call(dy, x, w);
  }

  static Tensor bias_gradient(const Tensor& dy) {
    return rows(dy).sum(0);
  }
};

NoGeometryPtr no_geometry() {
  static const auto shared = c10::make_intrusive<NoGeometry>();
  return shared;
}

Tensor forward(const Tensor& x, const Tensor& w, const OptionalTensor& bias) {
  return at::linear(x, w, bias);
}

Tensor input_gradient(const Tensor& dy, const Tensor&, const Tensor& w) {
  return at::matmul(dy, w);
}

Tensor weight_gradient(const Tensor& dy, const Tensor& x, const Tensor&) {
  return at::mm(rows(dy).t(), rows(x));
}

Tensor forward_autograd(const Tensor& x, const Tensor& w, const OptionalTensor& bias) {
  return Bilinear<Linear>::apply(x, w, bias, no_geometry());
}

Tensor input_gradient_autograd(const Tensor& dy, const Tensor& x, const Tensor& w) {
  return BilinearInputGradient<Linear>::apply(dy, w, Like{x}, no_geometry(), DebtPtr());
}

Tensor weight_gradient_autograd(const Tensor& dy, const Tensor& x, const Tensor& w) {
  return BilinearWeightGradient<Linear>::apply(dy, x, Like{w}, no_geometry());
}

template <c10::DeviceType kDevice>
Tensor forward_autocast(const Tensor& x, const Tensor& w, const OptionalTensor& bias) {
  const WithoutAutocast plain;
  const OptionalTensor b = bias.has_value() && bias->defined() ? OptionalTensor(narrow<kDevice>(*bias)) : bias;
  static const auto op = find_op<Forward>("gan_fast::linear");
  return op.call(narrow<kDevice>(x), narrow<kDevice>(w), b);
}

}  // namespace

TORCH_LIBRARY_FRAGMENT(gan_fast, m) {
  m.def("linear(Tensor x, Tensor w, Tensor? bias) -> Tensor");
  m.def("linear_input_gradient(Tensor dy, Tensor x, Tensor w) -> Tensor");
  m.def("linear_weight_gradient(Tensor dy, Tensor x, Tensor w) -> Tensor");
}

TORCH_LIBRARY_IMPL(gan_fast, CompositeExplicitAutograd, m) {
  m.impl("linear", &forward);
  m.impl("linear_input_gradient", &input_gradient);
  m.impl("linear_weight_gradient", &weight_gradient);
}

TORCH_LIBRARY_IMPL(gan_fast, Autograd, m) {
  m.impl("linear", &forward_autograd);
  m.impl("linear_input_gradient", &input_gradient_autograd);
  m.impl("linear_weight_gradient", &weight_gradient_autograd);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCPU, m) {
  m.impl("linear", &forward_autocast<c10::DeviceType::CPU>);
}

TORCH_LIBRARY_IMPL(gan_fast, AutocastCUDA, m) {
  m.impl("linear", &forward_autocast<c10::DeviceType::CUDA>);
}

}  // namespace gan_fast
