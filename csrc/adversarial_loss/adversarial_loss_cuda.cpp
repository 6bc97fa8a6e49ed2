// The adversarial ops on CUDA: one launch forward (loss, statistics, and the gradients if asked for), one backward.
//
// Relativistic average takes more, since its terms depend on means: means, then the loss; backward means, sums of
// derivatives, then the gradients. Nothing waits for the card.

#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "adversarial_loss/adversarial_loss_host.h"
#include "common/cuda/map_reduce_host.h"

namespace gan_fast {
namespace {

using cuda::Item;
using cuda::MapOptions;
using cuda::MapReduceFamilies;
using cuda::ReduceOptions;

using Result = std::tuple<Tensor, Tensor, std::vector<Tensor>>;
using Numbers = at::ArrayRef<double>;
using Items = std::vector<Item<TermNumbers>>;

MapReduceFamilies& kernels(Kind kind) {
  static MapReduceFamilies families[] = {
      {"adversarial_loss", "adversarial_linear"}, {"adversarial_loss", "adversarial_softplus"},
      {"adversarial_loss", "adversarial_hinge"},  {"adversarial_loss", "adversarial_square"},
      {"adversarial_loss", "adversarial_pair"}};
  return families[static_cast<int>(kind == Kind::Average ? Kind::Softplus : kind)];
}

Items items_of(const AdversarialArgs& a, const AdversarialPlan& plan) {
  Items items(plan.segments.size());
  const int n_real = static_cast<int>(a.real.size());
  for (int k = 0; k < static_cast<int>(items.size()); ++k) {
    Item<TermNumbers>& item = items[k];
    item.segment = plan.segments[k];
    item.numbers = plan.numbers[k];
    item.scale = a.reduction == Mean ? 1 / static_cast<double>(item.segment.n) : 1;
    item.side = k < n_real ? 0 : 1;
    item.other = a.averaged() ? (k < n_real ? k + n_real : k - n_real) : k;
    item.other_factor = plan.segments[item.other].factor;
  }
  return items;
}

double element_count(TensorList tensors) {
  double n = 0;
  for (const Tensor& t : tensors) {
    n += static_cast<double>(t.numel());
  }
  return n;
}

Tensor empty_results(const AdversarialArgs& a, at::IntArrayRef shape) {
  return at::empty(shape, a.first().options().dtype(accumulate_type(a.first().scalar_type())));
}

// One number for each term, in double.
Tensor empty_by_term(const AdversarialArgs& a) {
  return at::empty({static_cast<int64_t>(a.term_count())}, a.first().options().dtype(at::kDouble));
}

void write_means(const AdversarialArgs& a, const Items& items, const Tensor& means) {
  ReduceOptions options;
  options.means = means.mutable_data_ptr<double>();
  cuda::run_reduce(kernels(Kind::Linear).reduce, a.first().device(), a.first().scalar_type(), items, options);
}

Items without_gradients(Items items) {
  for (Item<TermNumbers>& item : items) {
    item.segment.grad = item.segment.grad2 = nullptr;
  }
  return items;
}

Result adversarial_loss_cuda(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term, int64_t reduction, bool with_stats, bool with_gradients) {
  const AdversarialArgs a =
      check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction);
  const c10::Device device = a.first().device();
  const at::ScalarType storage = a.first().scalar_type();
  const c10::DeviceGuard guard(device);
  AdversarialPlan plan = plan_adversarial(a, with_gradients, false, {}, 1.0);
  const Items items = items_of(a, plan);
  Tensor loss = empty_results(a, {}), stats = empty_results(a, {with_stats ? 5 : 0});
  ReduceOptions options;
  options.loss = loss.mutable_data_ptr();
  options.stats = with_stats ? stats.mutable_data_ptr() : nullptr;
  options.real_count = element_count(a.real);
  options.fake_count = element_count(a.fake);
  MapReduceFamilies& family = kernels(a.kind);
  cuda::KernelFamily& reduce = with_gradients ? family.reduce_grad : family.reduce;
  if (!a.averaged()) {
    cuda::run_reduce(reduce, device, storage, items, options);
    return {loss, stats, std::move(plan.gradients)};
  }
  const Tensor means = empty_by_term(a), derivatives = empty_by_term(a);
  write_means(a, without_gradients(items), means);
  options.shifts = means.const_data_ptr<double>();
  options.derivatives = with_gradients ? derivatives.mutable_data_ptr<double>() : nullptr;
  cuda::run_reduce(reduce, device, storage, without_gradients(items), options);
  if (with_gradients) {
    MapOptions map;
    map.shifts = means.const_data_ptr<double>();
    map.offsets = derivatives.const_data_ptr<double>();
    cuda::run_map(family.map, device, storage, items, map);
  }
  return {loss, stats, std::move(plan.gradients)};
}

std::vector<Tensor> adversarial_terms_cuda(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, Numbers real_term,
    Numbers fake_term) {
  const AdversarialArgs a = check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, None);
  const c10::DeviceGuard guard(a.first().device());
  AdversarialPlan plan = plan_adversarial(a, false, true, {}, 1.0);
  const Items items = items_of(a, plan);
  MapOptions options;
  Tensor means;
  if (a.averaged()) {
    means = empty_by_term(a);
    write_means(a, items, means);
    options.shifts = means.const_data_ptr<double>();
  }
  cuda::run_map(kernels(a.kind).map, a.first().device(), a.first().scalar_type(), items, options);
  return std::move(plan.values);
}

std::vector<Tensor> adversarial_loss_backward_cuda(
    TensorList grads, TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind,
    Numbers real_term, Numbers fake_term, int64_t reduction) {
  const AdversarialArgs a =
      check_adversarial(real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction);
  const bool each = reduction == None;
  TORCH_CHECK_VALUE(
      grads.size() == (each ? a.term_count() : 1), "adversarial_loss_backward got ", grads.size(), " gradients");
  const c10::Device device = a.first().device();
  const at::ScalarType storage = a.first().scalar_type();
  const c10::DeviceGuard guard(device);
  AdversarialPlan plan = plan_adversarial(a, true, false, each ? grads : TensorList(), 1.0);
  const Items items = items_of(a, plan);
  MapOptions options;
  Tensor grad_output, means, derivatives;
  if (!each) {
    grad_output = grads[0].to(accumulate_type(storage));
    options.grad_output = grad_output.const_data_ptr();
  }
  if (a.averaged()) {
    means = empty_by_term(a);
    derivatives = empty_by_term(a);
    write_means(a, without_gradients(items), means);
    ReduceOptions sums;
    sums.shifts = means.const_data_ptr<double>();
    sums.derivatives = derivatives.mutable_data_ptr<double>();
    cuda::run_reduce(kernels(a.kind).reduce_grad, device, storage, without_gradients(items), sums);
    options.shifts = means.const_data_ptr<double>();
    options.offsets = derivatives.const_data_ptr<double>();
  }
  cuda::run_map(kernels(a.kind).map, device, storage, items, options);
  return std::move(plan.gradients);
}

}  // namespace

TORCH_LIBRARY_IMPL(gan_fast, CUDA, m) {
  m.impl("adversarial_loss", &adversarial_loss_cuda);
  m.impl("adversarial_terms", &adversarial_terms_cuda);
  m.impl("adversarial_loss_backward", &adversarial_loss_backward_cuda);
}

}  // namespace gan_fast
