"""A compiled critic step has the gradients of the eager one, or it is an error."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_fast import losses, penalties
from gan_fast.penalties import CompiledStepError, compile_step

RELATIVISTIC = losses.RelativisticLoss()
WASSERSTEIN = losses.WassersteinLoss()
# Before 2.14, torch.compile refuses some steps that it would get wrong.
OLDER = "|cannot compile" if torch.__version__ < "2.14" else ""


def conv_critic(dtype: torch.dtype = torch.float64) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.LeakyReLU(0.2), nn.Conv2d(6, 5, 3, stride=2), nn.Softplus(), nn.Flatten(),
        nn.Linear(45, 1),
    ).to(dtype)  # fmt: skip


def mlp_critic(dtype: torch.dtype = torch.float64) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 1)).to(dtype)


def images(count: int = 4, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.randn(count, 3, 8, 8, dtype=dtype), torch.randn(count, 3, 8, 8, dtype=dtype)


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    loss = WASSERSTEIN.discriminator(real=critic(real), fake=critic(fake))
    loss = loss + penalties.gradient_penalty(critic, real, fake)
    loss.backward()
    return loss


def dragan(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    loss = losses.NonSaturatingLoss().discriminator(real=critic(real), fake=critic(fake))
    loss = loss + penalties.dragan_penalty(critic, real)
    loss.backward()
    return loss


def r1(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    logits = critic(real)
    loss = losses.HingeLoss().discriminator(real=logits, fake=critic(fake))
    loss = loss + penalties.r1_penalty(logits, real, 0.7)
    loss.backward()
    return loss


def r2(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    logits = critic(fake)
    loss = losses.LeastSquaresLoss().discriminator(real=critic(real), fake=logits)
    loss = loss + penalties.r2_penalty(logits, fake, 0.7)
    loss.backward()
    return loss


def r3gan(critic: nn.Module, real: Tensor, fake: Tensor) -> tuple[Tensor, Any]:
    real_logits, fake_logits = critic(real), critic(fake)
    loss, stats = RELATIVISTIC.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
    loss = loss + penalties.r1_penalty(real_logits, real, 0.7) + penalties.r2_penalty(fake_logits, fake, 0.3)
    loss.backward()
    return loss, stats


def critic_backward(critic: nn.Module, real: Tensor, fake: Tensor) -> Any:
    return penalties.critic_backward(critic, real=real, fake=fake, loss=RELATIVISTIC, r1=0.7, r2=0.3, plan="autograd")


def outcome(step: Callable[..., Any], critic: nn.Module, *args: Tensor) -> dict[str, Any]:
    """Everything a step leaves: results, gradients, buffers, parameters, random state."""
    torch.manual_seed(7)
    result = [x.detach() for x in torch.utils._pytree.tree_leaves(step(critic, *args)) if isinstance(x, Tensor)]
    left = {f"grad {name}": p.grad for name, p in critic.named_parameters()}
    return {**{f"result {i}": x for i, x in enumerate(result)}, **left, **critic.state_dict()} | {
        "random": torch.get_rng_state()
    }


def agree(got: dict[str, Any], expected: dict[str, Any], rtol: float = 1e-12) -> None:
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if value is None:
            assert got[name] is None, name
        else:
            scale = float(value.abs().max()) if value.is_floating_point() else 0.0
            torch.testing.assert_close(
                got[name], value, rtol=rtol, atol=rtol * scale, msg=lambda m, n=name: f"{n}: {m}"
            )


@contextlib.contextmanager
def where_torch_can() -> Iterator[None]:
    """Before 2.14, torch.compile traces fewer steps and loses some writes: our error is then what is right."""
    try:
        yield
    except CompiledStepError as error:
        if torch.__version__ < "2.14":
            pytest.skip(str(error))
        raise


def as_eager(step: Callable[..., Any], critic: nn.Module, rtol: float = 1e-12, calls: int = 2, **options: Any) -> None:
    """Two calls, the second accumulating, of the compiled step and of the step itself, on copies of one critic."""
    leaves = ("real", "fake")
    compiled = compile_step(step, leaves=leaves, **options)
    critic.zero_grad()
    other = copy.deepcopy(critic)
    dtype = next(critic.parameters()).dtype
    for _ in range(calls):
        real, fake = images(dtype=dtype)
        with where_torch_can():
            got = outcome(compiled, critic, real, fake)
        agree(got, outcome(step, other, real.clone().requires_grad_(), fake.clone().requires_grad_()), rtol)
        assert not real.requires_grad and real.grad is None


STEPS = [gradient_penalty, dragan, r1, r2, r3gan, critic_backward]


@pytest.mark.parametrize("critic", [conv_critic, mlp_critic])
@pytest.mark.parametrize("step", STEPS)
def test_equals_eager(step, critic):
    as_eager(step, critic(), backend="aot_eager")


def test_inductor_equals_eager():
    as_eager(gradient_penalty, mlp_critic(), calls=1, backend="inductor")


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_inductor_equals_eager_in_both_precisions(step):
    as_eager(step, conv_critic(), calls=1, backend="inductor")
    as_eager(step, conv_critic(torch.float32), rtol=2e-4, calls=1, backend="inductor")


def test_path_length():
    generator = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 24), nn.Unflatten(1, (3, 2, 4))).double()

    class Regularized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.generator, self.penalty = copy.deepcopy(generator), penalties.PathLengthPenalty().double()

    def step(model: Any, latents: Tensor) -> Tensor:
        loss = model.penalty(model.generator(latents), latents)
        loss.backward()
        return loss

    latents = torch.randn(4, 5, dtype=torch.float64)
    compiled, model, other = compile_step(step, leaves=("latents",), backend="aot_eager"), Regularized(), Regularized()
    for _ in range(2):
        with where_torch_can():
            got = outcome(compiled, model, latents)
        agree(got, outcome(step, other, latents.clone().requires_grad_()))
    assert model.penalty.mean > 0  # moved twice, not by the verification too


def test_state_moves_once_and_random_numbers_are_those_of_eager():
    """Dropout draws the same masks; the power iteration and the running statistics move one step a call."""
    critic = nn.Sequential(
        nn.Flatten(),
        spectral_norm(nn.Linear(192, 16)),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.Dropout(0.4),
        nn.Linear(16, 1),
    ).double()
    as_eager(r3gan, critic, backend="aot_eager")
    as_eager(r3gan, critic.eval(), backend="aot_eager")


def test_verified_anew_for_another_shape_and_mode(monkeypatch):
    critic, compiled = conv_critic(), compile_step(r1, leaves=("real",), backend="aot_eager")
    verified = []
    original = penalties.compiled.CompiledStep._compare_with_eager
    monkeypatch.setattr(
        penalties.compiled.CompiledStep,
        "_compare_with_eager",
        lambda self, *args: (verified.append(1), original(self, *args)),
    )
    for count, times in ((4, 1), (4, 1), (5, 2), (5, 2), (4, 2)):
        critic.zero_grad()
        with where_torch_can():
            compiled(critic, *images(count))
        assert len(verified) == times
    critic[0].weight.requires_grad_(False)
    compiled(critic, *images())
    assert len(verified) == 3 and critic[0].weight.grad is not None  # zero_grad was not called


class Square(torch.autograd.Function):
    """Right in eager mode to second order; dropped by a compiled double backward."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, g):
        return SquareBackward.apply(*ctx.saved_tensors, g)


class SquareBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, g):
        ctx.save_for_backward(x, g)
        return 2 * x * g

    @staticmethod
    def backward(ctx, h):
        x, g = ctx.saved_tensors
        return 2 * g * h, 2 * x * h


class SquareOfOperators(Square):
    """The same with a backward of PyTorch's operators: dropped just as well."""

    @staticmethod
    def backward(ctx, g):
        return 2 * ctx.saved_tensors[0] * g


class Squares(nn.Module):
    function = Square

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("gate", [1.0, 0.0])
def test_python_function_pair_is_an_error_not_a_wrong_number(dtype, gate):
    """Also where the last layer starts at zero, so that the wrong part is zero at first."""
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), Squares(), nn.Flatten(), nn.Linear(144, 1)).to(dtype)
    with torch.no_grad():
        critic[3].weight.mul_(gate)
    before = {name: value.clone() for name, value in critic.state_dict().items()}
    critic[0].bias.grad = torch.ones_like(critic[0].bias)
    real, fake = images(dtype=dtype)
    random = torch.get_rng_state()
    compiled = compile_step(r1, leaves=("real",), backend="aot_eager")
    for _ in range(2):
        with pytest.raises(CompiledStepError, match=r"parameter [03]\.(weight|bias) is .* away from eager" + OLDER):
            compiled(critic, real, fake)
    assert all(torch.equal(critic.state_dict()[name], value) for name, value in before.items())
    assert critic[0].weight.grad is None and bool((critic[0].bias.grad == 1).all())
    assert torch.equal(random, torch.get_rng_state())


def test_python_function_of_operators():
    """An error under a penalty; without one, where torch.compile has it right, it runs."""
    critic = nn.Sequential(nn.Conv2d(3, 4, 3), Squares(), nn.Flatten(), nn.Linear(144, 1)).double()
    critic[1].function = SquareOfOperators
    with pytest.raises(CompiledStepError, match="away from eager" + OLDER):
        compile_step(r1, leaves=("real",), backend="aot_eager")(critic, *images())

    def step(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = WASSERSTEIN.discriminator(real=critic(real), fake=critic(fake))
        loss.backward()
        return loss

    as_eager(step, critic, backend="aot_eager")


def test_compiled_parts_are_refused():
    critic = conv_critic()
    critic[2].compile(backend="aot_eager")
    compiled = compile_step(r1, leaves=("real",), backend="aot_eager")
    with pytest.raises(CompiledStepError, match=r"Sequential\.2 is compiled by itself"):
        compiled(critic, *images())
    with pytest.raises(CompiledStepError, match="compiled by itself"):
        compiled(torch.compile(conv_critic(), backend="aot_eager"), *images())
    with pytest.raises(CompiledStepError, match="compiled by itself"):
        compile_step(lambda real, fake: r1(critic, real, fake), leaves=("real",))(*images())


def test_no_backward_inside():
    def step(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        return WASSERSTEIN.discriminator(real=critic(real), fake=critic(fake))

    with pytest.raises(CompiledStepError, match=r"accumulates no gradient: call loss\.backward\(\) inside"):
        compile_step(step, backend="aot_eager")(conv_critic(), *images())


def test_untraceable_step_gives_the_reason_and_leaves_no_trace():
    def step(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return r1(critic, real, fake)

    critic = conv_critic()
    with pytest.raises(CompiledStepError, match=r"cannot compile the step .*graph_break"):
        compile_step(step, leaves=("real",), backend="aot_eager")(critic, *images())
    assert all(p.grad is None for p in critic.parameters())


def test_what_belongs_outside_is_refused():
    critic = conv_critic()
    optimizer = torch.optim.SGD(critic.parameters(), lr=1.0)

    def step(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        loss = r1(critic, real, fake)
        optimizer.step()
        return loss

    before = critic[0].weight.clone()
    with pytest.raises(CompiledStepError, match="optimizer"):
        compile_step(step, leaves=("real",), backend="aot_eager")(critic, *images())
    assert torch.equal(before, critic[0].weight) and critic[0].weight.grad is None
    real, fake = images()
    with pytest.raises(CompiledStepError, match="graph behind it"):
        compile_step(r1, leaves=("real",), backend="aot_eager")(critic, real, fake.requires_grad_() * 2)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="no argument 'image'"):
        compile_step(r1, leaves=("image",))
    with pytest.raises(ValueError, match="tuple"):
        compile_step(r1, leaves="real")
    with pytest.raises(ValueError, match="fullgraph"):
        compile_step(r1, fullgraph=False)
    with pytest.raises(ValueError, match="not floating point"):
        compile_step(r1, leaves=("real",))(conv_critic(), torch.ones(2, 3, 8, 8, dtype=torch.int64), images()[1])
    with pytest.raises(CompiledStepError, match="no tensor and no module"):
        compile_step(lambda: None)()


def test_unverified():
    critic, other = mlp_critic(), mlp_critic()
    other.load_state_dict(critic.state_dict())
    real, fake = images()
    got = outcome(compile_step(r3gan, leaves=("real", "fake"), verify=False, backend="aot_eager"), critic, real, fake)
    agree(got, outcome(r3gan, other, real.requires_grad_(), fake.requires_grad_()))


def test_the_callers_stance_holds():
    """`torch.compiler.set_stance("force_eager")` debugs a step without taking compile_step out."""
    seen = []

    def step(critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
        seen.append(torch.compiler.is_compiling())
        return r1(critic, real, fake)

    with torch.compiler.set_stance("force_eager"):
        compile_step(step, leaves=("real",), backend="aot_eager")(conv_critic(), *images())
    assert seen == [False]
