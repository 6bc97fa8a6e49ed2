// softplus and log-sigmoid on CUDA: one launch forward, one backward.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "common/cuda/map_reduce_host.h"
#include "softplus/softplus_arguments.h"

namespace gan_fast {
namespace {

Tensor run(const Tensor& input, const Tensor* grad, double beta, double threshold) {
  static cuda::KernelFamily kernels("softplus", "softplus_map");
  const at::ScalarType storage = input.scalar_type();
  storage_code(storage);
  const c10::DeviceGuard guard(input.device());
  const Tensor x = dense(input);
  const Tensor c = grad != nullptr ? laid_out_as(grad->to(storage), x) : Tensor();
  Tensor out = at::empty_like(x);
  cuda::Item<cuda::SoftplusNumbers> item;
  item.numbers = {beta, threshold};
  Segment& s = item.segment = {};
  s.x = x.const_data_ptr();
  s.inner = 1;
  s.n = x.numel();
  s.factor = 1;
  if (grad != nullptr) {
    s.c = c.const_data_ptr();
    s.grad = out.mutable_data_ptr();
  } else {
    s.value = out.mutable_data_ptr();
  }
  cuda::run_map<cuda::SoftplusNumbers>(kernels, input.device(), storage, {item}, {});
  return out;
}

Tensor forward_cuda(const Tensor& input, double beta, double threshold) {
  return run(input, nullptr, beta, threshold);
}

Tensor backward_cuda(const Tensor& grad, const Tensor& input, double beta, double threshold) {
  return run(input, &grad, beta, threshold);
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("softplus", &forward_cuda);
  m.impl("softplus_backward", &backward_cuda);
}

}  // namespace gan_fast
