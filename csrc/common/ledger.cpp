#include "common/ledger.h"

#include <algorithm>

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

DebtPtr Ledger::open(DebtPtr debt) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++deferred;
  debts_.push_back(debt);
  return debt;
}

std::vector<std::pair<Tensor, Tensor>> Ledger::sweep() {
  const std::lock_guard<std::mutex> lock(mutex_);
  const at::NoGradGuard no_grad;
  std::vector<std::pair<Tensor, Tensor>> paid;
  for (const DebtPtr& debt : debts_) {
    if (debt->take()) {
      ++swept;
      paid.emplace_back(debt->w, debt->weight_gradient(debt->dy, debt->x, debt->w));
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
