"""One step by `critic_backward` beside one by the oracle, and how near they must be.

The distance is that of the worst element, relative to the largest element of the critic's whole gradient.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from gan_fast import losses, penalties
from penalties.oracle import Step, critic_step
from penalties.zoo import Case
from support.adversarial_formulas import NAMES, Loss

BOUND = 1e-9
COUNT = 4


def losses_for(index: int, name: str | None = None) -> tuple[losses.AdversarialLoss, Loss]:
    """The package's loss and the formula, the seven in turn."""
    name = name or NAMES[index % len(NAMES)]
    return losses.get(name)(), Loss(name)


def assert_gradients(critic: nn.Module, expected: Step, *, factor: float = 1.0, bound: float = BOUND) -> None:
    """`.grad` of every parameter is `factor` times the oracle's; frozen parameters have none."""
    given = [g for g in expected.gradients.values() if g is not None]
    scale = factor * max(float(g.abs().max()) for g in given)
    assert scale > 0, "the case has no gradient"
    for name, parameter in critic.named_parameters():
        want = expected.gradients.get(name)
        if want is None:
            assert parameter.grad is None or not parameter.grad.any(), f"{name}: a gradient where there is none"
            continue
        assert parameter.grad is not None, f"{name}: no gradient"
        assert parameter.grad.shape == parameter.shape and parameter.grad.grad_fn is None, name
        error = float((parameter.grad - factor * want).abs().max()) / abs(scale)
        assert error <= bound, f"{name}: {error:.2e} of the largest gradient away (NaN if not finite)"


def assert_statistics(stats: losses.CriticStats, expected: Step, plan: str) -> None:
    """The numbers beside the gradient, detached, in the documented places."""
    o, p = expected.real_logits, expected.fake_logits
    numbers = {
        "loss": expected.loss,
        "real_mean": o.mean(),
        "fake_mean": p.mean(),
        "real_sign_mean": o.sign().mean(),
        "fake_sign_mean": p.sign().mean(),
        "r1": expected.r1,
        "r2": expected.r2,
    }
    for name, want in numbers.items():
        got = getattr(stats, name)
        assert got.shape == () and not got.requires_grad, name
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-12, msg=lambda m, name=name: f"{name}: {m}")
    assert stats.plan == plan


def both(
    case: Case,
    critic: nn.Module,
    twin: nn.Module,
    plan: str,
    index: int,
    *,
    counts: tuple[int, int] = (COUNT, COUNT),
    loss: tuple[losses.AdversarialLoss, Loss] | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[losses.CriticStats, Step]:
    """One step by `critic_backward` on `critic`, one by the oracle on its `twin`, from one random state."""
    (n, m), (fused, formula) = counts, loss or losses_for(index)
    real, fake = case.images(n, 2 * seed), case.images(m, 2 * seed + 1)
    real_kwargs, fake_kwargs = case.kwargs(n, 2 * seed), case.kwargs(m, 2 * seed + 1)
    settings = {"r1": 0.7, "r2": 0.3, **settings}
    torch.manual_seed(seed)
    stats = penalties.critic_backward(
        critic,
        real=real,
        fake=fake,
        loss=fused,
        critic_kwargs=(real_kwargs, fake_kwargs) if case.inputs else None,
        augment=case.augment,
        plan=plan,
        **settings,
    )
    torch.manual_seed(seed)
    expected = critic_step(
        twin,
        real,
        fake,
        formula,
        real_kwargs=real_kwargs,
        fake_kwargs=fake_kwargs,
        augment=case.augment,
        joint=case.joint and plan == "shared",
        **{name: value for name, value in settings.items() if name in ("r1", "r2", "real_weight", "fake_weight")},
    )
    return stats, expected
