// The adversarial ops' arguments checked, and turned into the segments that the kernels of every device are given.

#include "adversarial_loss/adversarial_loss_host.h"

namespace gan_fast {
namespace {

void check_side(const char* side, TensorList logits, TensorList weights, const Tensor& first) {
  TORCH_CHECK_VALUE(
      weights.empty() || weights.size() == logits.size(), side, "_weight has ", weights.size(), " tensors for ",
      logits.size(), " tensors of ", side, " logits; give one a tensor, or none");
  for (size_t k = 0; k < logits.size(); ++k) {
    const Tensor& x = logits[k];
    storage_code(x.scalar_type());
    TORCH_CHECK_VALUE(
        x.scalar_type() == first.scalar_type(), side, " logits are ", name_of(x.scalar_type()), " but others are ",
        name_of(first.scalar_type()), "; convert one of them, for instance with .to(torch.", name_of(first.scalar_type()), ")");
    TORCH_CHECK_VALUE(
        x.device() == first.device(), side, " logits are on ", x.device(), " but others are on ", first.device(),
        "; move them to one device");
    if (weights.empty()) {
      continue;
    }
    const Tensor& w = weights[k];
    const bool per_sample = x.dim() > 0 && w.dim() == 1 && w.sym_size(0) == x.sym_size(0);
    TORCH_CHECK_VALUE(
        per_sample || w.sym_sizes() == x.sym_sizes(), side, "_weight has shape ", w.sym_sizes(), " for logits of shape ",
        x.sym_sizes(), "; expected one weight a sample, [N], or one a logit");
    TORCH_CHECK_VALUE(
        w.device() == x.device(), side, "_weight is on ", w.device(), " but its logits are on ", x.device());
    TORCH_CHECK_VALUE(
        !w.requires_grad(), side, "_weight requires grad, but weights are constants of the loss; pass ", side,
        "_weight.detach()");
  }
}

}  // namespace

TermNumbers term_numbers(at::ArrayRef<double> n) {
  TORCH_CHECK_VALUE(n.size() == 3, "a term is (p, scale, slope), but got ", n.size(), " numbers");
  return {n[0], n[1], n[2], 0};
}

AdversarialArgs check_adversarial(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind, at::ArrayRef<double> real_term,
    at::ArrayRef<double> fake_term, int64_t reduction) {
  TORCH_CHECK_VALUE(!real.empty() || !fake.empty(), "an adversarial loss got no logits; pass a tensor or a list of tensors");
  TORCH_CHECK_VALUE(kind >= 0 && kind <= 5, "kind of term is ", kind, "; expected 0 to 5");
  TORCH_CHECK_VALUE(
      real.empty() || fake.empty() || real.size() == fake.size(), "got ", real.size(), " scales of real logits and ",
      fake.size(), " of fake; expected as many of each");
  AdversarialArgs a;
  a.kind = static_cast<Kind>(kind);
  a.real_term = term_numbers(real_term);
  a.fake_term = term_numbers(fake_term);
  a.reduction = reduction;
  const Tensor& first = fake.empty() ? real[0] : fake[0];
  check_side("real", real, real_weight, first);
  check_side("fake", fake, fake_weight, first);
  if (a.paired() || a.averaged()) {
    TORCH_CHECK_VALUE(!real.empty() && !fake.empty(), "a relativistic loss compares real with fake logits: it needs both");
  }
  if (a.paired()) {
    for (size_t k = 0; k < real.size(); ++k) {
      TORCH_CHECK_VALUE(
          real[k].sym_sizes() == fake[k].sym_sizes(), "real logits have shape ", real[k].sym_sizes(), " and fake logits ",
          fake[k].sym_sizes(), "; a relativistic loss pairs them one by one, so their shapes must be equal");
    }
  }
  a.real = real;
  a.fake = fake;
  a.real_weight = real_weight;
  a.fake_weight = fake_weight;
  return a;
}

Tensor spread_weight(const Tensor& w, const Tensor& x) {
  if (w.dim() == x.dim()) {
    return w;
  }
  std::vector<int64_t> shape(x.dim(), 1);
  shape[0] = -1;
  return w.view(shape);
}

AdversarialPlan plan_adversarial(
    const AdversarialArgs& a, bool with_gradients, bool with_values, TensorList cotangents, double factor) {
  AdversarialPlan plan;
  const size_t n_real = a.real.size(), n_fake = a.fake.size();
  plan.segments.reserve(a.term_count());
  plan.kept.reserve(4 * (n_real + n_fake));
  if (with_gradients) {
    plan.gradients.resize(n_real + n_fake);
  }
  auto keep = [&](Tensor t) -> const Tensor& { return plan.kept.emplace_back(std::move(t)); };

  auto add = [&](const Tensor& logits, const Tensor* other, const Tensor* weight, const Tensor* second_weight,
                 const TermNumbers& numbers, size_t gradient, size_t gradient2) {
    Segment s{};
    const Tensor& x = keep(dense(logits));
    s.x = x.const_data_ptr();
    s.n = x.numel();
    s.inner = 1;
    if (other != nullptr) {
      s.y = keep(laid_out_as(*other, x)).const_data_ptr();
    }
    if (weight != nullptr || second_weight != nullptr) {
      const bool per_sample = weight != nullptr && second_weight == nullptr && weight->dim() == 1 && x.dim() > 0 &&
          (x.numel() == 0 || x.size(0) == 1 || x.stride(0) * x.size(0) == x.numel());
      const at::ScalarType type = accumulate_type(x.scalar_type());
      auto spread = [&](const Tensor& w) { return spread_weight(w.to(type), x).expand(x.sizes()); };
      if (per_sample) {
        s.w = keep(weight->to(type).contiguous()).const_data_ptr();
        s.inner = std::max<int64_t>(x.numel() / std::max<int64_t>(x.size(0), 1), 1);
      } else {
        Tensor w = weight == nullptr ? spread(*second_weight)
            : second_weight == nullptr ? spread(*weight)
                                       : at::mul(spread(*weight), spread(*second_weight));
        s.w = keep(laid_out_as(w, x)).const_data_ptr();
      }
    }
    const size_t term = plan.segments.size();
    if (!cotangents.empty()) {
      s.c = keep(laid_out_as(cotangents[term].to(x.scalar_type()), x)).const_data_ptr();
    }
    s.factor = a.reduction == Mean ? factor / static_cast<double>(s.n) : factor;
    if (with_gradients) {
      plan.gradients[gradient] = empty_like_dense(x);
      s.grad = plan.gradients[gradient].mutable_data_ptr();
      if (other != nullptr) {
        plan.gradients[gradient2] = empty_like_dense(x);
        s.grad2 = plan.gradients[gradient2].mutable_data_ptr();
      }
    }
    if (with_values) {
      s.value = plan.values.emplace_back(empty_like_dense(x)).mutable_data_ptr();
    }
    plan.segments.push_back(s);
    plan.numbers.push_back(numbers);
  };

  for (size_t k = 0; k < n_real; ++k) {
    const Tensor* wr = a.real_weight.empty() ? nullptr : &a.real_weight[k];
    const Tensor* wf = a.paired() && !a.fake_weight.empty() ? &a.fake_weight[k] : nullptr;
    add(a.real[k], a.paired() ? &a.fake[k] : nullptr, wr, wf, a.real_term, k, n_real + k);
  }
  for (size_t k = 0; k < n_fake && !a.paired(); ++k) {
    add(a.fake[k], nullptr, a.fake_weight.empty() ? nullptr : &a.fake_weight[k], nullptr, a.fake_term, n_real + k, 0);
  }
  return plan;
}

}  // namespace gan_fast
