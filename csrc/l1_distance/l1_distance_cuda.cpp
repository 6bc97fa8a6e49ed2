// The L1 distance on CUDA: one launch forward, one backward, for the whole list of pairs.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "common/cuda/map_reduce_host.h"
#include "l1_distance/l1_distance_host.h"

namespace gan_fast {
namespace {

using Items = std::vector<cuda::Item<cuda::NoNumbers>>;

cuda::MapReduceFamilies& kernels() {
  static cuda::MapReduceFamilies families("l1_distance", "l1");
  return families;
}

Items items_of(const L1Plan& plan) {
  Items items;
  for (const Segment& s : plan.segments) {
    items.push_back({s, {}, 1 / static_cast<double>(s.n)});
  }
  return items;
}

std::tuple<Tensor, std::vector<Tensor>> forward_cuda(TensorList a, TensorList b, bool with_gradients) {
  check_l1(a, b);
  const c10::DeviceGuard guard(a[0].device());
  L1Plan plan = plan_l1(a, b, with_gradients, 1);
  Tensor distance = at::empty({}, a[0].options().dtype(accumulate_type(a[0].scalar_type())));
  cuda::ReduceOptions options;
  options.loss = distance.mutable_data_ptr();
  cuda::KernelFamily& family = with_gradients ? kernels().reduce_grad : kernels().reduce;
  cuda::run_reduce(family, a[0].device(), a[0].scalar_type(), items_of(plan), options);
  return {distance, std::move(plan.gradients)};
}

std::vector<Tensor> backward_cuda(const Tensor& grad, TensorList a, TensorList b) {
  check_l1(a, b);
  const c10::DeviceGuard guard(a[0].device());
  const Tensor up = grad.to(accumulate_type(a[0].scalar_type()));
  L1Plan plan = plan_l1(a, b, true, 1);
  cuda::MapOptions options;
  options.grad_output = up.const_data_ptr();
  cuda::run_map(kernels().map, a[0].device(), a[0].scalar_type(), items_of(plan), options);
  return std::move(plan.gradients);
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("l1_distance", &forward_cuda);
  m.impl("l1_distance_backward", &backward_cuda);
}

}  // namespace gan_fast
