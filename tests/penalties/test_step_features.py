"""What a critic step does beside the gradient: image gradients, precisions, power iterations, errors."""

from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
import torch
from torch import nn

import gan_fast
from gan_fast import losses, penalties
from penalties.comparison import COUNT, assert_gradients
from penalties.layers import conv
from penalties.oracle import critic_step
from penalties.zoo import CASES, MIXING
from support.adversarial_formulas import NAMES, Loss

PLANS = ("shared", "autograd")


def images(seed: int = 0, n: int = COUNT, shape: tuple[int, ...] = (3, 8, 8)) -> torch.Tensor:
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def backward(critic: Any, **settings: Any) -> losses.CriticStats:
    """A step with R1 and R2 on four images a side."""
    defaults = {"real": images(0), "fake": images(1), "loss": losses.NonSaturatingLoss(), "r1": 1.0, "r2": 0.5}
    return penalties.critic_backward(critic, **{**defaults, **settings})


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("loss", NAMES)
def test_fake_image_gradient(loss: str, plan: str) -> None:
    """d generator loss / d fake, the real logits held fixed, where the augmentation is inside; the critic's too."""
    for name in ("dcgan", "fixed warp", "smooth augmentation", "tanh"):
        case, fused = CASES[name], losses.get(loss)()
        critic = case.critic()
        stats = backward(critic, loss=losses.HingeLoss(), generator_loss=fused, augment=case.augment, plan=plan)
        goal = Loss(loss, role="generator")
        expected = critic_step(
            case.critic(),
            images(0),
            images(1),
            Loss("hinge"),
            r1=1.0,
            r2=0.5,
            augment=case.augment,
            generator_loss=goal,
        )
        assert stats.fake_image_grad is not None and not stats.fake_image_grad.requires_grad
        scale = expected.fake_image_grad.abs().max()
        assert float((stats.fake_image_grad - expected.fake_image_grad).abs().max() / scale) < 1e-9, name
        assert_gradients(critic, expected)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize(("r1", "r2"), [(0.0, 0.0), (1.0, 0.0), (0.0, 1.0)])
@pytest.mark.parametrize("name", ["ada", "dropout", "spectral norm", "diffaugment"])
def test_fake_image_gradient_of_this_steps_draws(name: str, plan: str, r1: float, r2: float) -> None:
    """The same masks, augmentation and power iteration as the critic's own loss saw, with and without penalties."""
    case = CASES[name]
    torch.manual_seed(3)
    settings = {"r1": r1, "r2": r2, "augment": case.augment}
    stats = backward(case.critic(), plan=plan, generator_loss=losses.NonSaturatingLoss(), **settings)
    torch.manual_seed(3)
    goal, joint = Loss("non_saturating", role="generator"), case.joint and plan == "shared"
    expected = critic_step(
        case.critic(), images(0), images(1), Loss("non_saturating"), generator_loss=goal, joint=joint, **settings
    )
    torch.testing.assert_close(stats.fake_image_grad, expected.fake_image_grad, rtol=1e-9, atol=1e-12)


def test_fake_image_gradient_of_a_mixing_critic() -> None:
    """`auto`: the formula calls the critic on the fakes alone."""
    case = MIXING["batch norm"]
    with pytest.warns(UserWarning, match="mix"):
        stats = backward(case.critic(), generator_loss=losses.NonSaturatingLoss())
    goal = Loss("non_saturating", role="generator")
    expected = critic_step(case.critic(), images(0), images(1), Loss("non_saturating"), generator_loss=goal)
    torch.testing.assert_close(stats.fake_image_grad, expected.fake_image_grad)


def test_no_generator_loss_no_image_gradient() -> None:
    assert all(backward(CASES["dcgan"].critic(), plan=plan).fake_image_grad is None for plan in PLANS)


@pytest.mark.parametrize("plan", [*PLANS, "auto"])
@pytest.mark.parametrize("name", ["spectral norm", "spectral norm hook"])
def test_one_power_iteration(name: str, plan: str) -> None:
    """Three steps leave the vectors where three forwards leave them, whatever the plan, with or without penalties."""
    critic, twin = CASES[name].critic(), CASES[name].critic()
    for settings in ({}, {"r1": 0.0, "r2": 0.0}, {"generator_loss": losses.HingeLoss()}):
        backward(critic, plan=plan, **settings)
        twin(images())
        for (key, buffer), expected in zip(critic.named_buffers(), twin.buffers(), strict=True):
            torch.testing.assert_close(buffer, expected, rtol=1e-12, atol=1e-14, msg=key)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["dcgan", "r3gan filter", "tanh", "checkpointed"])
def test_autocast(name: str, dtype: torch.dtype, plan: str) -> None:
    """Runs inside the block, does not leak out of it, gradients and statistics in the parameters' precision."""
    critic = CASES[name].critic(dtype=torch.float32)
    real, fake = images(0).float(), images(1).float()
    seen: list[torch.dtype] = []
    hook = next(m for m in critic.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(
        lambda module, args, output: seen.append(output.dtype)
    )
    with torch.autocast("cpu", dtype):
        stats = backward(critic, real=real, fake=fake, plan=plan)
    hook.remove()
    assert set(seen) == {dtype} and not torch.is_autocast_enabled("cpu")
    assert stats.loss.dtype == torch.float32 and stats.plan == plan
    expected = critic_step(
        CASES[name].critic(dtype=torch.float32).double(), images(0).float().double(), images(1).float().double(),
        Loss("non_saturating"), r1=1.0, r2=0.5,
    )  # fmt: skip
    assert_gradients(critic.double(), expected, bound=0.3)


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("n", [4, 512])
def test_float16_small_cotangents(n: int, plan: str) -> None:
    """The mean over many samples, and logits that are nearly right, do not underflow on the way to the images."""
    critic, twin = CASES["dcgan"].critic(dtype=torch.float32), CASES["dcgan"].critic()
    for model in (critic, twin):
        with torch.no_grad():
            model[-1].bias.fill_(-6.0)
    real, fake = images(0, n), images(1, n)
    with torch.autocast("cpu", torch.float16):
        stats = backward(critic, real=real.float(), fake=fake.float(), plan=plan, r1=10.0, r2=10.0)
    expected = critic_step(twin, real, fake, Loss("non_saturating"), r1=10.0, r2=10.0)
    torch.testing.assert_close(stats.r2.double(), expected.r2, rtol=0.02, atol=0)
    assert_gradients(critic.double(), expected, bound=0.05)


def test_logits_that_are_not_one_per_sample() -> None:
    """`shared` says so; `auto` takes the formula: the gradient of the sum of a sample's logits."""
    patches = nn.Sequential(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), conv(4, 1, 1)).double()
    twin = copy.deepcopy(patches)
    with pytest.raises(ValueError, match=r"(?s)4, 1, 4, 4.*one logit|one logit.*4, 1, 4, 4"):
        backward(patches, plan="shared")
    assert all(parameter.grad is None for parameter in patches.parameters())
    stats = backward(patches)
    assert stats.plan == "autograd"
    assert_gradients(patches, critic_step(twin, images(0), images(1), Loss("non_saturating"), r1=1.0, r2=0.5))


@pytest.mark.parametrize("plan", [*PLANS, "auto"])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"real": images(0, 0)}, "empty|no real|at least one"),
        ({"fake": images(0, 0)}, "empty|no fake|at least one"),
        ({"r1": -1.0}, "r1"),
        ({"r2": -0.5}, "r2"),
        ({"r1": float("nan")}, "r1"),
        ({"loss": losses.HingeLoss(reduction="none")}, "reduction"),
        ({"generator_loss": losses.HingeLoss(reduction="none")}, "reduction"),
        ({"real": images(0).to("meta")}, "device"),
        ({"critic_kwargs": {"labels": torch.zeros(4, device="meta")}}, "device"),
        ({"fake": images(0)[:, :, :4]}, "shape"),
        ({"fake": images(0).float()}, "dtype|float32"),
        ({"real": images(0, 3), "loss": losses.RelativisticLoss()}, "3.*4|equal|as many|shape"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_refuses(settings: dict[str, Any], message: str, plan: str) -> None:
    """One line that names what is wrong, and no gradient."""
    critic = CASES["projection" if "critic_kwargs" in settings else "dcgan"].critic()
    with pytest.raises((ValueError, TypeError, RuntimeError), match=f"(?i){message}") as raised:
        backward(critic, plan=plan, **settings)
    assert len(str(raised.value).strip().splitlines()) == 1, raised.value
    assert all(parameter.grad is None for parameter in critic.parameters())


def test_refuses_an_unknown_plan() -> None:
    with pytest.raises(ValueError, match=r"(?s)fastest.*shared|shared.*fastest"):
        backward(CASES["dcgan"].critic(), plan="fastest")


@pytest.mark.parametrize("plan", [*PLANS, "auto"])
def test_refuses_under_no_grad(plan: str) -> None:
    for context in (torch.no_grad, torch.inference_mode):
        with context(), pytest.raises(RuntimeError, match="grad"):
            backward(CASES["dcgan"].critic(), plan=plan)


@pytest.mark.parametrize("plan", PLANS)
def test_a_critic_that_ignores_its_images(plan: str) -> None:
    """Its penalty is zero: a constant logit has no image gradient, and the loss's gradient is there."""

    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logit = nn.Parameter(torch.zeros(1, dtype=torch.float64))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.logit.expand(len(x)) + 0 * x.flatten(1).sum(1)

    critic = Constant()
    stats = backward(critic, loss=losses.WassersteinLoss(), real=images(0, 2), fake=images(1, 4), plan=plan)
    assert stats.r1 == 0 and stats.r2 == 0 and critic.logit.grad is not None
    torch.testing.assert_close(critic.logit.grad, torch.zeros(1, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("plan", PLANS)
def test_an_error_in_the_critic_leaves_nothing_behind(plan: str) -> None:
    """The critic's own exception comes through; the next step, and layers outside, work as before."""
    critic, case = CASES["dcgan"].critic(), CASES["dcgan"]
    hook = critic[2].register_forward_pre_hook(lambda module, args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        backward(critic, plan=plan)
    hook.remove()
    assert all(parameter.grad is None for parameter in critic.parameters())
    backward(critic, plan=plan)
    assert_gradients(critic, critic_step(case.critic(), images(0), images(1), Loss("non_saturating"), r1=1.0, r2=0.5))


def test_a_compiled_critic_runs_uncompiled_and_says_so_once() -> None:
    """aot_autograd has no double backward; the module inside has, and shares its parameters."""
    case = CASES["dcgan"]
    critic = case.critic()

    def never(graph: Any, inputs: Any) -> Any:
        raise AssertionError("the critic was compiled")

    compiled = torch.compile(critic, backend=never)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        stats = backward(compiled)
        expected = critic_step(case.critic(), images(0), images(1), Loss("non_saturating"), r1=1.0, r2=0.5)
        assert_gradients(critic, expected)
        backward(compiled)
    assert stats.plan == "shared" and sum("compile" in str(warning.message).lower() for warning in said) == 1


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("context", [penalties.fast_double_backward, gan_fast.reference_mode])
@pytest.mark.parametrize("name", ["dcgan", "r3gan filter", "time", "audio"])
def test_inside_another_context(name: str, context: Any, plan: str) -> None:
    """Phases and debts belong to a step's own graph: a graph of lean layers that is open meanwhile is left alone."""
    case = CASES[name]
    critic, other, kwargs = case.critic(), case.critic(1), case.kwargs(COUNT, 0)
    real, fake = case.images(COUNT, 0), case.images(COUNT, 1)
    x = case.images(COUNT, 2).requires_grad_()

    def penalty(logits: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(logits.sum(), x, create_graph=True)[0].square().sum()

    with context():
        open_graph = penalty(other(x, **kwargs))
        stats = backward(critic, real=real, fake=fake, critic_kwargs=kwargs or None, plan=plan)
    open_graph.backward()
    expected = critic_step(
        case.critic(), real, fake, Loss("non_saturating"), r1=1.0, r2=0.5, real_kwargs=kwargs, fake_kwargs=kwargs
    )
    assert_gradients(critic, expected)
    assert stats.plan == plan
    mine = {key: parameter.grad for key, parameter in other.named_parameters()}
    other.zero_grad(set_to_none=True)
    penalty(other(x, **kwargs)).backward()
    for key, parameter in other.named_parameters():
        torch.testing.assert_close(mine[key], parameter.grad, rtol=1e-9, atol=1e-12, msg=key)


def test_a_smaller_step_after_a_larger_one() -> None:
    """Steps repeat: no debt is left from one to the next, and the same step gives the same bits."""
    critic = CASES["r3gan filter"].critic()
    seen = []
    for seed in (0, 5, 0):
        critic.zero_grad(set_to_none=True)
        stats = backward(critic, real=images(seed), fake=images(seed + 1), plan="shared")
        seen.append(([parameter.grad for parameter in critic.parameters()], stats.debts))
    assert all(torch.equal(a, b) for a, b in zip(seen[0][0], seen[2][0], strict=True))
    assert seen[0][1] == seen[1][1] == seen[2][1]
