// The ledger of one exact critic step: which layers owe the gradient of their weight.
//
// In the first backward of the step, seeded at the logits, a bilinear layer y = A(x; w) that must return dx leaves its
// dw = A*(x, dy) out and opens a debt. The double backward of the penalty brings the same layer the tangent t of dx and
// pays A*(x + t, dy): the loss's gradient and the penalty's in one product. What it does not reach is swept afterwards.
// A weight that is itself computed from the images carries part of their gradient, so it cannot wait.
#pragma once

#include <ATen/ATen.h>
#include <ATen/core/ivalue.h>

#include <atomic>
#include <functional>
#include <mutex>
#include <utility>
#include <vector>

namespace gan_fast {

using at::Tensor;

// What one layer owes: weight_gradient(dy, x). The tensors are let go when it is paid.
struct Debt : torch::CustomClassHolder {
  Tensor dy, x, w;
  std::function<Tensor(const Tensor& dy, const Tensor& x, const Tensor& w)> weight_gradient;
  std::atomic<bool> open{true};

  // True for the one caller who pays.
  bool take() {
    return open.exchange(false);
  }
  void let_go();
};

using DebtPtr = c10::intrusive_ptr<Debt>;

class Ledger : public torch::CustomClassHolder {
 public:
  // The ledger that layers of the running forward pass attach to; null outside an exact critic step.
  static c10::intrusive_ptr<Ledger> current();
  static void set_current(c10::intrusive_ptr<Ledger> ledger);

  // Whether the first backward is running. Nodes ask their own ledger, from whatever thread the engine runs them on.
  std::atomic<bool> first{false};

  // Whether a layer ran in float16, whose range the cotangents must then keep to.
  std::atomic<bool> half{false};
  std::atomic<int64_t> deferred{0}, swept{0}, reentered{0};

  // The images whose gradient the first backward returns; a leaf.
  void set_images(const Tensor& images);

  // Whether the gradient of `w` may be computed after the first backward: not if it flows on to the images.
  bool may_wait(const Tensor& w) const;

  DebtPtr open(DebtPtr debt);

  // Pays what is still open: pairs of a weight, with the graph behind it, and its gradient.
  std::vector<std::pair<Tensor, Tensor>> sweep();

  // Whether a debt's weight is computed from parameters, so that its graph is needed once more for the sweep.
  bool has_computed_weights();

 private:
  std::mutex mutex_;
  Tensor images_;
  std::vector<DebtPtr> debts_;
};

using LedgerPtr = c10::intrusive_ptr<Ledger>;

}  // namespace gan_fast
