"""Critics whose samples mix: `shared` refuses, `auto` gives the formula's gradient and says why once, no trace stays.

The formula calls the critic on real and on fake separately, so its statistics are those of one side. Any gradient of
the shared plan would be another one; a critic that mixes only in some mode, for some arguments or at some batch size
must be found when it does.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import nn

from gan_fast import losses, penalties
from penalties import mixers
from penalties.comparison import COUNT, assert_gradients, assert_statistics, both
from penalties.layers import Gate, Residual
from penalties.oracle import critic_step
from penalties.zoo import CASES, MIXING, Case, between, dcgan, leaky, strided
from support.adversarial_formulas import Loss


@contextmanager
def heard() -> Iterator[list[str]]:
    """What is said inside the block, by `warnings` or by `logging`."""
    said: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            said.append(record.getMessage())

    listener, logger = Listener(logging.INFO), logging.getLogger("gan_fast")
    logger.addHandler(listener)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            yield said
        said += [str(warning.message) for warning in caught]
    finally:
        logger.removeHandler(listener)


def traces(critic: nn.Module) -> dict[str, Any]:
    """Everything about a critic and the random state that a look at it must leave as it was."""
    found: dict[str, Any] = {"cpu": torch.get_rng_state().tolist(), "python": random.getstate()}
    for name, parameter in critic.named_parameters():
        gradient = None if parameter.grad is None else parameter.grad.tolist()
        found[f"parameter {name}"] = (id(parameter), parameter._version, parameter.tolist(), gradient)
        found[f"flags {name}"] = (parameter.requires_grad, dict(parameter._backward_hooks or {}))
    for name, buffer in critic.named_buffers():
        found[f"buffer {name}"] = (id(buffer), buffer.tolist())
    for name, module in critic.named_modules():
        hooks = [len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)]
        found[f"module {name}"] = (id(module), module.training, sorted(vars(module)), hooks)
    return found


def step(critic: nn.Module, case: Case, plan: str, *, seed: int = 0, n: int = COUNT, **settings: Any) -> Any:
    """One step with the hinge loss."""
    kwargs = case.kwargs(n, 2 * seed), case.kwargs(n, 2 * seed + 1)
    return penalties.critic_backward(
        critic,
        real=case.images(n, 2 * seed),
        fake=case.images(n, 2 * seed + 1),
        loss=losses.HingeLoss(),
        r1=0.7,
        r2=0.3,
        critic_kwargs=kwargs if case.inputs else None,
        augment=case.augment,
        plan=plan,
        **settings,
    )


@pytest.mark.parametrize("name", list(MIXING))
def test_shared_refuses(name: str) -> None:
    """One clear error, before anything is changed, the second time too."""
    case = MIXING[name]
    critic = case.critic()
    for parameter in critic.parameters():
        parameter.grad = torch.full_like(parameter, 0.25)
    before = traces(critic)
    for _ in range(2):
        with pytest.raises(ValueError, match=r"(?i)mix") as raised:
            step(critic, case, "shared")
        assert "\n" not in str(raised.value).strip() and "autograd" in str(raised.value)
        after = traces(critic)
        assert [key for key in before if before[key] != after[key]] == [] and before.keys() == after.keys()


@pytest.mark.parametrize("name", list(MIXING))
def test_auto_is_the_formula_and_says_why_once(name: str) -> None:
    """The gradient, the buffers and the random state that `autograd` leaves."""
    case = MIXING[name]
    critic, plain = case.critic(), case.critic()
    with heard() as said:
        stats, expected = both(case, critic, case.critic(), "auto", 0)
        state = torch.get_rng_state()
        assert_gradients(critic, expected)
        assert_statistics(stats, expected, "autograd")
        critic.zero_grad()
        again, _ = both(case, critic, case.critic(), "auto", 0, seed=5)
    assert again.plan == "autograd"
    reasons = [text for text in said if "mix" in text.lower()]
    assert len(reasons) == 1, said
    both(case, plain, case.critic(), "autograd", 0)
    assert torch.equal(torch.get_rng_state(), state)
    both(case, plain, case.critic(), "autograd", 0, seed=5)
    for (key, buffer), expected_buffer in zip(critic.named_buffers(), plain.buffers(), strict=True):
        assert torch.equal(buffer, expected_buffer), f"{key} saw another number of calls"


@pytest.mark.parametrize("name", list(CASES))
def test_no_trace_of_the_look(name: str) -> None:
    """The first step, which looks, leaves what a later step leaves; a critic that does not mix is not spoken of."""
    case = CASES[name]
    looked, fresh = case.critic(), case.critic()
    state = {key: value.clone() for key, value in fresh.state_dict().items()}
    torch.manual_seed(1)
    with heard() as said:
        step(looked, case, "shared")
    first = traces(looked)
    assert not said
    versions = [parameter._version for parameter in looked.parameters()]
    assert versions == [parameter._version for parameter in fresh.parameters()]
    looked.load_state_dict(state)
    looked.zero_grad()
    torch.manual_seed(1)
    step(looked, case, "shared")
    second = traces(looked)
    for key in first:
        if key.startswith("parameter"):
            assert first[key][2:] == second[key][2:], f"{key}: the first step is another than the second"
        else:
            assert first[key] == second[key], key


def check(
    critic: nn.Module, twin: nn.Module, case: Case, plan: str, *, seed: int = 0, n: int = COUNT, **kw: Any
) -> None:
    """An `auto` step takes `plan` and has the oracle's gradient."""
    twin.load_state_dict(critic.state_dict())
    critic.zero_grad()
    real, fake = case.images(n, 2 * seed), case.images(n, 2 * seed + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stats = penalties.critic_backward(
            critic, real=real, fake=fake, loss=losses.HingeLoss(), r1=0.7, r2=0.3, critic_kwargs=kw or None
        )
    expected = critic_step(twin, real, fake, Loss("hinge"), r1=0.7, r2=0.3, real_kwargs=kw, fake_kwargs=kw)
    assert_gradients(critic, expected)
    assert stats.plan == plan


def test_looks_again_when_a_module_is_replaced() -> None:
    case, critic, twin = CASES["dcgan"], mixers.Switched().double(), mixers.Switched().double()
    check(critic, twin, case, "shared")
    critic.middle, twin.middle = nn.BatchNorm2d(4).double(), nn.BatchNorm2d(4).double()
    check(critic, twin, case, "autograd", seed=1)
    critic.middle, twin.middle = nn.Identity(), nn.Identity()
    check(critic, twin, case, "shared", seed=2)


def test_looks_again_when_a_module_is_added() -> None:
    case, critic, twin = CASES["dcgan"], dcgan().double(), dcgan().double()
    check(critic, twin, case, "shared")
    for model in (critic, twin):
        model.insert(3, Residual(nn.BatchNorm2d(8), Gate()).double())
    check(critic, twin, case, "autograd", seed=1)


def test_looks_again_in_train_and_eval() -> None:
    case = CASES["dcgan"]
    critic, twin = (strided(nn.BatchNorm2d, leaky).double() for _ in range(2))
    check(critic.eval(), twin.eval(), case, "shared")
    check(critic.train(), twin.train(), case, "autograd", seed=1)
    check(critic.eval(), twin.eval(), case, "shared", seed=2)
    critic[3].train(), twin[3].train()  # one submodule alone
    check(critic, twin, case, "autograd", seed=3)


def test_looks_again_for_other_kwargs() -> None:
    case, critic, twin = CASES["dcgan"], mixers.Switched().double(), mixers.Switched().double()
    check(critic, twin, case, "shared")
    check(critic, twin, case, "autograd", seed=1, pooled=True)
    check(critic, twin, case, "shared", seed=2, pooled=False)


def test_looks_again_for_another_augmentation() -> None:
    case, critic, mixing = CASES["dcgan"], dcgan().double(), MIXING["augmentation mixes"].augment
    assert step(critic, case, "auto").plan == "shared"
    with pytest.raises(ValueError, match=r"(?i)mix"):
        step(critic, MIXING["augmentation mixes"], "shared")
    assert mixing is not None and step(critic, case, "auto").plan == "shared"


def test_mixing_that_depends_on_the_number_of_samples() -> None:
    """Groups of four where the batch divides so: 3 + 3 samples do not mix, 4 + 4 do, and so do 2 + 2 in one batch."""
    case = CASES["dcgan"]
    critic, twin = (between(leaky(), mixers.DeviationOfFours(), nn.Conv2d(5, 4, 3)).double() for _ in range(2))
    for seed, (n, plan) in enumerate([(3, "shared"), (4, "autograd"), (3, "shared"), (2, "autograd"), (5, "shared")]):
        check(critic, twin, case, plan, seed=seed, n=n)


def test_other_batch_sizes_of_a_critic_that_does_not_mix() -> None:
    case, critic, twin = CASES["r3gan filter"], CASES["r3gan filter"].critic(), CASES["r3gan filter"].critic()
    for seed, n in enumerate((4, 1, 3, 7)):
        check(critic, twin, case, "shared", seed=seed, n=n)


def test_one_sample_a_side() -> None:
    """Real and fake are two samples of one batch: mixing shows even so."""
    critic = MIXING["centred logits"].critic()
    with pytest.raises(ValueError, match=r"(?i)mix"):
        step(critic, MIXING["centred logits"], "shared", n=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["batch norm", "stddev behind zeros", "minibatch stddev", "attention over samples"])
def test_found_in_low_precision(name: str, dtype: torch.dtype) -> None:
    """float32, and bfloat16 by autocast: the look tells mixing from rounding."""
    case = MIXING[name]
    critic, real, fake = (case.critic(dtype=torch.float32), *(case.images(4, k, torch.float32) for k in (0, 1)))
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16), pytest.raises(ValueError, match="mix"):
        penalties.critic_backward(critic, real=real, fake=fake, loss=losses.HingeLoss(), r1=1.0, plan="shared")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", [name for name in CASES if name != "bilinear"])  # autocast does not know nn.Bilinear
def test_rounding_is_not_mixing(name: str, dtype: torch.dtype) -> None:
    """Every critic of the zoo that does not mix is served in float32 and under bfloat16 autocast, finite."""
    case = CASES[name]
    critic, kwargs = case.critic(dtype=torch.float32), [case.kwargs(4, k, torch.float32) for k in (0, 1)]
    real, fake = case.images(4, 0, torch.float32), case.images(4, 1, torch.float32)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        stats = penalties.critic_backward(
            critic,
            real=real,
            fake=fake,
            loss=losses.NonSaturatingLoss(),
            r1=1.0,
            r2=1.0,
            critic_kwargs=(kwargs[0], kwargs[1]) if case.inputs else None,
            augment=case.augment,
            plan="shared",
        )
    assert stats.plan == "shared" and stats.loss.isfinite()
    for key, parameter in critic.named_parameters():
        assert parameter.grad is None or (parameter.grad.isfinite().all() and parameter.grad.dtype == torch.float32), (
            key
        )
