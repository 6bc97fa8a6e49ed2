// Binary cross entropy on CUDA: one launch forward, one backward. A probability outside [0, 1] gives NaN: the error that the
// CPU raises would make the host wait for the card.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "binary_cross_entropy/binary_cross_entropy_host.h"
#include "common/cuda/map_reduce_host.h"

namespace gan_fast {
namespace {

using Items = std::vector<cuda::Item<cuda::NoNumbers>>;

cuda::MapReduceFamilies& kernels(bool logits) {
  static cuda::MapReduceFamilies of_logits("binary_cross_entropy", "bce_logits");
  static cuda::MapReduceFamilies of_probabilities("binary_cross_entropy", "bce_probabilities");
  return logits ? of_logits : of_probabilities;
}

std::tuple<Tensor, Tensor> forward_cuda(
    const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight, bool logits,
    int64_t reduction, bool with_gradient) {
  check_bce(input, target, weight, pos_weight);
  const c10::DeviceGuard guard(input.device());
  const at::ScalarType storage = input.scalar_type();
  BcePlan p = plan_bce(input, target, weight, pos_weight, nullptr);
  Tensor none = at::empty({0}, input.options());
  if (reduction == None) {
    Tensor value = at::empty_like(p.x);
    p.segment.value = value.mutable_data_ptr();
    cuda::run_map(kernels(logits).map, input.device(), storage, Items{{p.segment, {}}}, {});
    return {value, none};
  }
  const double share = reduction == Mean ? 1 / static_cast<double>(p.segment.n) : 1;
  Tensor loss = at::empty({}, input.options()), gradient = with_gradient ? at::empty_like(p.x) : none;
  p.segment.factor = share;
  p.segment.grad = with_gradient ? gradient.mutable_data_ptr() : nullptr;
  cuda::ReduceOptions options;
  options.loss = loss.mutable_data_ptr();
  cuda::KernelFamily& family = with_gradient ? kernels(logits).reduce_grad : kernels(logits).reduce;
  cuda::run_reduce(family, input.device(), storage, Items{{p.segment, {}, share}}, options);
  return {loss, gradient};
}

Tensor backward_cuda(
    const Tensor& grad, const Tensor& input, const Tensor& target, const Optional& weight, const Optional& pos_weight,
    bool logits, int64_t reduction) {
  check_bce(input, target, weight, pos_weight);
  const c10::DeviceGuard guard(input.device());
  const Tensor up = grad.to(input.scalar_type());
  BcePlan p = plan_bce(input, target, weight, pos_weight, reduction == None ? &up : nullptr);
  Tensor gradient = at::empty_like(p.x);
  p.segment.grad = gradient.mutable_data_ptr();
  p.segment.factor = reduction == Mean ? 1 / static_cast<double>(p.segment.n) : 1;
  cuda::MapOptions options;
  options.grad_output = reduction == None ? nullptr : up.const_data_ptr();
  cuda::run_map(kernels(logits).map, input.device(), input.scalar_type(), Items{{p.segment, {}}}, options);
  return gradient;
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("binary_cross_entropy", &forward_cuda);
  m.impl("binary_cross_entropy_backward", &backward_cuda);
}

}  // namespace gan_fast
