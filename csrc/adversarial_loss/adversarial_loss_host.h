// The arguments of the adversarial ops after checking, and the segments that the kernels of every device are given.
#pragma once

#include <ATen/core/Tensor.h>

#include "adversarial_loss/adversarial_loss.h"
#include "common/host.h"

namespace gan_fast {

// The lists are views of the caller's: what outlives a call is in `Restored` (adversarial_loss.cpp).
struct AdversarialArgs {
  TensorList real, fake, real_weight, fake_weight;
  Kind kind = Kind::Linear;
  TermNumbers real_term, fake_term;
  int64_t reduction = Mean;

  bool paired() const {
    return kind == Kind::Pair;
  }
  bool averaged() const {
    return kind == Kind::Average;
  }
  const Tensor& first() const {
    return fake.empty() ? real.front() : fake.front();
  }
  // Terms are one a tensor, except that a pair has one for two tensors.
  size_t term_count() const {
    return paired() ? real.size() : real.size() + fake.size();
  }
};

// Checks everything that does not read data, and raises one clear error. Works on symbolic shapes.
AdversarialArgs check_adversarial(
    TensorList real, TensorList fake, TensorList real_weight, TensorList fake_weight, int64_t kind,
    at::ArrayRef<double> real_term, at::ArrayRef<double> fake_term, int64_t reduction);

// (p, scale, slope) as the ops are given it.
TermNumbers term_numbers(at::ArrayRef<double> n);

// One weight a sample, [N], as [N, 1, ..., 1]; a weight of the logits' shape as it is.
Tensor spread_weight(const Tensor& w, const Tensor& x);

// The loss through the dispatcher: the loss itself, statistics or [0], gradients or nothing.
using AdversarialResult = std::tuple<Tensor, Tensor, std::vector<Tensor>>;
AdversarialResult call_loss(const AdversarialArgs& args, bool with_stats, bool with_gradients);

// One segment a term, real's first; `kept` owns the memory they point to. Segment k belongs to term k, its numbers are
// `numbers[k]`. `gradients` (one a tensor, real's first; empty for none) and `values` (one a term) receive the results.
// `cotangents` (one a term) multiply the derivatives. `factor` is multiplied by 1/n for a mean.
struct AdversarialPlan {
  std::vector<Segment> segments;
  std::vector<TermNumbers> numbers;
  std::vector<Tensor> kept;
  std::vector<Tensor> gradients;
  std::vector<Tensor> values;
};
AdversarialPlan plan_adversarial(
    const AdversarialArgs& args, bool with_gradients, bool with_values, TensorList cotangents, double factor);

}  // namespace gan_fast
