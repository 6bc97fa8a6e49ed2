#include "common/ledger.h"

#include <c10/core/GradMode.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <unordered_set>

namespace gan_fast {
namespace {

thread_local LedgerPtr current_ledger;

}  // namespace

void Debt::let_go() {
  dy = x = w = Tensor();
}

LedgerPtr Ledger::current() {
  return current_ledger;
}

void Ledger::set_current(LedgerPtr ledger) {
  current_ledger = std::move(ledger);
}

void Ledger::set_images(const Tensor& images) {
  images_ = images;
}

bool Ledger::may_wait(const Tensor& w) const {
  using torch::autograd::Node;
  const auto images = torch::autograd::impl::grad_accumulator(images_);
  std::vector<Node*> next{w.grad_fn().get()};
  std::unordered_set<Node*> seen{nullptr};
  while (!next.empty()) {
    Node* const node = next.back();
    next.pop_back();
    if (!seen.insert(node).second) {
      continue;
    }
    if (node == images.get()) {
      return false;
    }
    for (const auto& edge : node->next_edges()) {
      next.push_back(edge.function.get());
    }
  }
  return true;
}

DebtPtr Ledger::open(DebtPtr debt) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++deferred;
  debts_.push_back(debt);
  return debt;
}

std::vector<std::pair<Tensor, Tensor>> Ledger::sweep() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const c10::NoGradGuard no_grad;
  std::vector<std::pair<Tensor, Tensor>> paid;
  for (const DebtPtr& debt : debts_) {
    if (debt->take()) {
      ++swept;
      if (Tensor gradient = debt->weight_gradient(debt->dy, debt->x, debt->w); gradient.defined()) {
        paid.emplace_back(debt->w, std::move(gradient));
      }
      debt->let_go();
    }
  }
  debts_.clear();
  return paid;
}

bool Ledger::has_computed_weights() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::any_of(debts_.begin(), debts_.end(), [](const DebtPtr& debt) { return !debt->w.is_leaf(); });
}

}  // namespace gan_fast
