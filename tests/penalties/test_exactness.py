"""`critic_backward` against the formula as it is written, in float64, over the zoo: every parameter within 1e-9.

The distance is that of the worst element, relative to the largest element of the critic's whole gradient. The oracle
calls the critic on real and on fake separately, or once where random draws are one stream, without gan_fast.
"""

from __future__ import annotations

import contextlib
import copy
import warnings

import pytest
import torch
from torch import nn

import gan_fast
from gan_fast import losses, penalties
from penalties.comparison import COUNT, assert_gradients, assert_statistics, both, losses_for
from penalties.oracle import critic_step
from penalties.zoo import CASES, MIXING, Case
from support.adversarial_formulas import NAMES, PAIRED, Loss

NAMED = list(CASES)

OPTIMISERS = (lambda p: torch.optim.SGD(p, lr=0.01), lambda p: torch.optim.Adam(p, lr=0.02, betas=(0.0, 0.99)))


@pytest.mark.parametrize("plan", ["shared", "autograd"])
@pytest.mark.parametrize("name", NAMED)
def test_gradients(name: str, plan: str) -> None:
    """At the initial weights, and after ten optimiser steps with the exact gradient."""
    case, index = CASES[name], NAMED.index(name)
    critic, twin = case.critic(), case.critic()
    stats, expected = both(case, critic, twin, plan, index)
    assert_gradients(critic, expected)
    assert_statistics(stats, expected, plan)
    if plan == "shared":
        _check_debts(case, critic, stats.debts)

    optimiser = OPTIMISERS[index % 2](twin.parameters())
    fused_and_formula = losses_for(index + 3)
    for step in range(1, 11):
        torch.manual_seed(step)
        kwargs = case.kwargs(COUNT, 2 * step), case.kwargs(COUNT, 2 * step + 1)
        images = case.images(COUNT, 2 * step), case.images(COUNT, 2 * step + 1)
        arguments = {"real_kwargs": kwargs[0], "fake_kwargs": kwargs[1], "augment": case.augment, "joint": case.joint}
        exact = critic_step(twin, *images, fused_and_formula[1], r1=0.7, r2=0.3, **arguments).gradients
        for key, parameter in twin.named_parameters():
            parameter.grad = exact.get(key)
        optimiser.step()
    critic.load_state_dict(twin.state_dict())
    critic.zero_grad()
    stats, expected = both(case, critic, twin, plan, index, loss=fused_and_formula, seed=11)
    assert_gradients(critic, expected)
    assert_statistics(stats, expected, plan)


def _check_debts(case: Case, critic: nn.Module, debts: losses.Debts | None) -> None:
    assert debts is not None
    for field in case.debts:
        assert getattr(debts, field) > 0, f"{field} is zero in {debts}"
    if case.lean:
        weights = [p for p in critic.parameters() if p.dim() > 1]
        assert debts == losses.Debts(deferred=len(weights), swept=0, reentered=0)


def test_the_zoo_has_every_loss_at_both_times() -> None:
    for shift in (0, 3):
        assert {NAMES[(index + shift) % len(NAMES)] for index in range(len(NAMED))} == set(NAMES)
    assert not set(CASES) & set(MIXING)


KINDS = ["dcgan", "r3gan filter", "projection", "tanh", "spectral norm", "logit zero"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", KINDS)
def test_losses(kind: str, name: str) -> None:
    """Every loss on critics of six kinds, the plan left to `auto`, unequal numbers of real and fake where it may be."""
    case = CASES[kind]
    critic, counts = case.critic(), (3, 3) if name in PAIRED else (3, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stats, expected = both(case, critic, case.critic(), "auto", 0, loss=losses_for(0, name), counts=counts)
    assert_gradients(critic, expected)
    assert_statistics(stats, expected, "shared")


@pytest.mark.parametrize(("r1", "r2"), [(0.0, 0.0), (2.0, 0.0), (0.0, 5.0), (1e-3, 1e3)])
@pytest.mark.parametrize("plan", ["shared", "autograd", "auto"])
@pytest.mark.parametrize("kind", ["dcgan", "projection", "attention and layer norm", "linear"])
def test_penalties(kind: str, plan: str, r1: float, r2: float) -> None:
    """Either penalty, both or none, each with its own weight; without one a step is a plain backward."""
    case = CASES[kind]
    critic = case.critic()
    stats, expected = both(case, critic, case.critic(), plan, 1, r1=r1, r2=r2)
    assert_gradients(critic, expected)
    assert stats.plan == ("autograd" if plan == "autograd" else "shared") or r1 == r2 == 0
    torch.testing.assert_close((stats.r1, stats.r2), (expected.r1, expected.r2))


@pytest.mark.parametrize("plan", ["shared", "autograd"])
@pytest.mark.parametrize("kind", ["dcgan", "tanh", "label added"])
@pytest.mark.parametrize("slack", [0.0, 0.5, 50.0])
def test_hinge_with_satisfied_samples(kind: str, plan: str, slack: float) -> None:
    """Samples beyond the margin have a cotangent of exactly zero and still a penalty; at 50 that is every sample."""
    case = CASES[kind]
    real, fake, fixed = case.images(COUNT, 0), case.images(COUNT, 1), {}
    critic, twin = Satisfied(case.critic(), slack), Satisfied(case.critic(), slack)
    if case.inputs:
        fixed = case.kwargs(COUNT, 0)
    sides = [{**fixed, "sign": torch.full((COUNT, 1), sign, dtype=torch.float64)} for sign in (1.0, -1.0)]
    penalties.critic_backward(
        critic,
        real=real,
        fake=fake,
        loss=losses.HingeLoss(),
        r1=0.7,
        r2=0.3,
        critic_kwargs=(sides[0], sides[1]),
        plan=plan,
    )
    expected = critic_step(twin, real, fake, Loss("hinge"), r1=0.7, r2=0.3, real_kwargs=sides[0], fake_kwargs=sides[1])
    satisfied = int((expected.real_logits > 1).sum() + (expected.fake_logits < -1).sum())
    assert satisfied == 2 * COUNT if slack == 50 else slack == 0 or 0 < satisfied < 2 * COUNT
    assert_gradients(critic, expected)


class Satisfied(nn.Module):
    """Logits moved by `slack` to the side that `sign` says."""

    def __init__(self, critic: nn.Module, slack: float) -> None:
        super().__init__()
        self.critic, self.slack = critic, slack

    def forward(self, x: torch.Tensor, sign: torch.Tensor, **kwargs: torch.Tensor) -> torch.Tensor:
        return self.critic(x, **kwargs).reshape(-1, 1) + self.slack * sign


@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_extreme_logits(plan: str) -> None:
    """Where a sample's cotangent is 1e-30 of another's its penalty counts all the same."""
    case = CASES["mlp"]
    critic, twin = case.critic(), case.critic()
    for model in (critic, twin):
        with torch.no_grad():
            model[-1].weight.mul_(60)
    _, expected = both(case, critic, twin, plan, 0, loss=losses_for(0, "non_saturating"), counts=(16, 16))
    cotangents = torch.sigmoid(torch.cat([-expected.real_logits, expected.fake_logits]))
    assert cotangents.min() < 1e-15 * cotangents.max()
    assert_gradients(critic, expected)


@pytest.mark.parametrize("plan", ["shared", "autograd"])
@pytest.mark.parametrize("name", NAMES)
def test_sample_weights(name: str, plan: str) -> None:
    """Weights multiply the loss's terms, zeros and negative numbers too, and leave the penalty alone."""
    case = CASES["dcgan"]
    critic = case.critic()
    weights = {
        "real_weight": torch.tensor([0.0, 2.0, 0.5, 1.0], dtype=torch.float64),
        "fake_weight": torch.tensor([1.5, 1.0, 0.0, -0.25], dtype=torch.float64),
    }
    stats, expected = both(case, critic, case.critic(), plan, 0, loss=losses_for(0, name), **weights)
    assert_gradients(critic, expected)
    torch.testing.assert_close((stats.loss, stats.r1, stats.r2), (expected.loss, expected.r1, expected.r2))


@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_reduction_sum(plan: str) -> None:
    """The loss is summed; the penalties are means whatever the reduction."""
    case, loss = CASES["dcgan"], losses.NonSaturatingLoss(reduction="sum", label_smoothing=0.1)
    formula, critic = Loss("non_saturating", label_smoothing=0.1), case.critic()
    real, fake = case.images(3, 0), case.images(3, 1)
    penalties.critic_backward(critic, real=real, fake=fake, loss=loss, r1=1.0, r2=2.0, plan=plan)
    assert_gradients(critic, critic_step(case.critic(), real, fake, formula, r1=1.0, r2=2.0, reduction="sum"))


@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("plan", ["shared", "autograd"])
@pytest.mark.parametrize("kind", ["dcgan", "projection", "tanh"])
def test_scale_and_accumulation(kind: str, plan: str, as_tensor: bool) -> None:
    """Two micro-batches at `scale` 1/2 add up in `.grad` to half the sum; statistics are those without the scale."""
    case, critic, twin = CASES[kind], CASES[kind].critic(), CASES[kind].critic()
    scale = torch.tensor(0.5, dtype=torch.float64) if as_tensor else 0.5
    first_stats, first = both(case, critic, twin, plan, 1, scale=scale)
    held = {name: parameter.grad for name, parameter in critic.named_parameters()}
    assert_gradients(critic, first, factor=0.5)
    assert_statistics(first_stats, first, plan)
    _, second = both(case, critic, twin, plan, 1, scale=scale, seed=3)
    total = {name: first.gradients[name] + second.gradients[name] for name in first.gradients}
    assert_gradients(critic, copy.copy(first).__class__(**{**first.__dict__, "gradients": total}), factor=0.5)
    for name, parameter in critic.named_parameters():
        assert parameter.grad is held[name], f"{name}: accumulated into another tensor"


@pytest.mark.parametrize("plan", ["shared", "autograd"])
@pytest.mark.parametrize("layout", ["channels_last", "expanded", "strided"])
def test_layouts(layout: str, plan: str) -> None:
    """Images and weights in other memory layouts; what is given is left as it was."""
    case = CASES["r3gan filter"]
    critic = case.critic()
    real, fake = case.images(COUNT, 0), case.images(COUNT, 1)
    if layout == "channels_last":
        critic = critic.to(memory_format=torch.channels_last)
        real, fake = (x.to(memory_format=torch.channels_last) for x in (real, fake))
    elif layout == "expanded":
        real, fake = real[:1].expand_as(real), fake[:1].expand_as(fake)
    else:
        real, fake = (torch.stack([x, x], -1)[..., 0] for x in (real, fake))
    version, kept = real._version, real.clone()
    penalties.critic_backward(critic, real=real, fake=fake, loss=losses.RelativisticLoss(), r1=1.0, r2=1.0, plan=plan)
    assert_gradients(critic, critic_step(case.critic(), real, fake, Loss("relativistic"), r1=1.0, r2=1.0))
    assert real._version == version and torch.equal(real, kept) and not real.requires_grad and real.grad is None


@pytest.mark.parametrize("reference", [False, True])
@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_gradients_lie_as_their_parameters(plan: str, reference: bool) -> None:
    """torch's fused Adam on a CPU pairs a gradient's elements with the weights' by their place in memory, whatever the
    strides, and autograd's own double backward of a 1x1 convolution returns another order than the weights'."""
    case = CASES["r3gan filter"]
    critic = case.critic().to(memory_format=torch.channels_last)
    images = [case.images(COUNT, i).to(memory_format=torch.channels_last) for i in (0, 1)]
    loss = losses.RelativisticLoss()
    with gan_fast.reference_mode() if reference else contextlib.nullcontext():
        penalties.critic_backward(critic, real=images[0], fake=images[1], loss=loss, r1=1.0, r2=1.0, plan=plan)
    wanted = critic_step(case.critic(), *images, Loss("relativistic"), r1=1.0, r2=1.0).gradients
    before = {name: parameter.detach().clone() for name, parameter in critic.named_parameters()}
    torch.optim.Adam(critic.parameters(), lr=1.0, betas=(0.0, 0.9), fused=True).step()
    for name, parameter in critic.named_parameters():
        # The first step is lr g / (|g| + eps).
        step = -wanted[name] / (wanted[name].abs() + 1e-8)
        torch.testing.assert_close(parameter.detach() - before[name], step, atol=1e-6, rtol=0, msg=name)


@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_images_with_a_graph(plan: str) -> None:
    """Fake images straight from a generator: the generator gets no gradient and keeps its graph."""
    case, generator = CASES["dcgan"], nn.Linear(4, 192).double()
    critic, fake = case.critic(), generator(torch.randn(COUNT, 4).double()).view(COUNT, 3, 8, 8)
    real = case.images(COUNT, 0).requires_grad_()
    penalties.critic_backward(critic, real=real, fake=fake, loss=losses.HingeLoss(), r1=1.0, r2=1.0, plan=plan)
    assert generator.weight.grad is None and real.grad is None
    assert_gradients(critic, critic_step(case.critic(), real, fake, Loss("hinge"), r1=1.0, r2=1.0))
    fake.sum().backward()
    assert generator.weight.grad is not None


@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_one_mapping_serves_both_sides(plan: str) -> None:
    """Tensors of the batch's size are per sample; what is not a tensor, or has another size, is passed as it is."""

    class Told(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.critic, self.table = CASES["projection"].critic(), nn.Parameter(torch.ones(3).double())

        def forward(self, x, labels, gain, table, flag=False):
            assert flag and table.shape == (3,)
            return self.critic(x, labels) * gain + (self.table * table).sum()

    kwargs = {"labels": torch.tensor([0, 3, 3, 1]), "gain": 0.5, "table": torch.randn(3).double(), "flag": True}
    case, critic, twin = CASES["projection"], Told(), Told()
    real, fake = case.images(COUNT, 0), case.images(COUNT, 1)
    penalties.critic_backward(
        critic, real=real, fake=fake, loss=losses.HingeLoss(), r1=1.0, critic_kwargs=kwargs, plan=plan
    )
    assert_gradients(
        critic, critic_step(twin, real, fake, Loss("hinge"), r1=1.0, real_kwargs=kwargs, fake_kwargs=kwargs)
    )


@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_list_of_critics(plan: str) -> None:
    """Each critic has its own loss and penalties; losses and penalties are summed, means are over all logits."""
    case = CASES["dcgan"]
    critics = [CASES["dcgan"].critic(), CASES["tanh"].critic(), CASES["r3gan filter"].critic()]
    twins = [CASES["dcgan"].critic(), CASES["tanh"].critic(), CASES["r3gan filter"].critic()]
    real, fake = case.images(COUNT, 0), case.images(COUNT, 1)
    stats = penalties.critic_backward(
        critics, real=real, fake=fake, loss=losses.MinimaxLoss(), r1=1.0, r2=0.5, plan=plan
    )
    steps = [critic_step(twin, real, fake, Loss("minimax"), r1=1.0, r2=0.5) for twin in twins]
    for critic, step in zip(critics, steps, strict=True):
        assert_gradients(critic, step)
    torch.testing.assert_close(stats.loss, sum(step.loss for step in steps))
    torch.testing.assert_close(stats.r1, sum(step.r1 for step in steps))
    torch.testing.assert_close(stats.r2, sum(step.r2 for step in steps))
    torch.testing.assert_close(stats.real_mean, torch.cat([step.real_logits.flatten() for step in steps]).mean())
    assert stats.plan == plan


def test_unused_parameters_keep_no_gradient() -> None:
    """As a plain backward leaves them, so that optimisers skip them in every plan."""
    for plan in ("shared", "autograd"):
        critic, case = CASES["unused parameter"].critic(), CASES["unused parameter"]
        both(case, critic, case.critic(), plan, 0)
        assert critic.never.grad is None and critic.cancelled.grad is not None, plan
