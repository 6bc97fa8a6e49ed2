"""gradient_penalty, dragan_penalty, r1_penalty and r2_penalty against closed forms, and what they refuse."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gan_fast
from gan_fast import penalties
from penalties import closed_form
from penalties.closed_form import ClosedForm, Hidden, Linear, one_sided, square, two_sided
from support.strategies import lay_out

SHAPE = (5, 2, 3, 4)
SIZE = 24


def images(seed: int, dtype: torch.dtype = torch.float64, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


class Recorder:
    """Calls the critic and keeps the images it was called with."""

    def __init__(self, critic: Callable[..., Tensor]) -> None:
        self.critic = critic
        self.seen: list[Tensor] = []

    def __call__(self, x: Tensor, **kwargs) -> Tensor:
        self.seen.append(x)
        return self.critic(x, **kwargs)


def r1(critic, real, fake, weight=10.0):
    x = real.detach().requires_grad_()
    return penalties.r1_penalty(critic(x), x, weight)


def r2(critic, real, fake, weight=10.0):
    x = fake.detach().requires_grad_()
    return penalties.r2_penalty(critic(x), x, weight)


PENALTIES = {
    "wgan_gp": (penalties.gradient_penalty, two_sided(10, 1)),
    "centre_3_weight_2": (
        lambda *args: penalties.gradient_penalty(*args, center=3.0, weight=2.0),
        two_sided(2, 3),
    ),
    "one_sided": (lambda *args: penalties.gradient_penalty(*args, one_sided=True, center=4.0), one_sided(10, 4)),
    "zero_centred": (lambda *args: penalties.gradient_penalty(*args, center=0.0), two_sided(10, 0)),
    "dragan": (lambda critic, real, fake: penalties.dragan_penalty(critic, real), two_sided(10, 1)),
    "r1": (r1, square(10)),
    "r2": (r2, square(10)),
}


def compare(penalty: Tensor, critic: ClosedForm, x: Tensor, formula: closed_form.Penalty, bound: float) -> None:
    """Value, gradient by parameter and by image; errors are relative to the largest entry of each."""
    value, by_parameter, by_image = closed_form.truth(critic, x, formula)
    names = list(by_parameter)
    leaves = [critic.get_parameter(name) for name in names]
    found = torch.autograd.grad(penalty, [*leaves, x], allow_unused=True, materialize_grads=True)
    expected = [*(by_parameter[name] for name in names), by_image]
    assert abs(penalty.item() - value) <= bound * abs(value)
    for what, got, exact in zip([*names, "images"], found, expected, strict=True):
        error, scale = np.abs(got.double().numpy() - exact).max(), np.abs(exact).max()
        assert error <= bound * max(scale, 1e-300), f"{what} off by {error}, the largest entry is {scale}"


@pytest.mark.parametrize("reference", [False, True], ids=["op", "reference"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last", "transposed"])
@pytest.mark.parametrize("critic_name", closed_form.CRITICS)
@pytest.mark.parametrize("name", PENALTIES)
def test_against_the_closed_form(name, critic_name, layout, reference):
    function, formula = PENALTIES[name]
    critic = closed_form.CRITICS[critic_name](SIZE)
    record = Recorder(critic)
    real, fake = (lay_out(images(seed), layout) for seed in (1, 2))
    if reference:
        with gan_fast.reference_mode():
            penalty = function(record, real, fake)
    else:
        penalty = function(record, real, fake)
    assert penalty.shape == () and len(record.seen) == 1
    compare(penalty, critic, record.seen[0], formula, 1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", PENALTIES)
def test_dtypes_with_norms_in_float32(name, dtype):
    """The gradient of a linear critic is its weight, exactly: what is left is the arithmetic of the penalty."""
    function, formula = PENALTIES[name]
    critic = Linear(SIZE).to(dtype)
    record = Recorder(critic)
    penalty = function(record, images(1, dtype), images(2, dtype))
    assert penalty.dtype == torch.float32 and record.seen[0].dtype == dtype
    value, by_parameter, _ = closed_form.truth(critic, record.seen[0], formula)
    assert abs(penalty.item() - value) <= 1e-6 * value
    (found,) = torch.autograd.grad(penalty, critic.w)
    assert found.dtype == dtype
    # rounded once a sample, then summed over samples in the dtype
    largest = np.abs(by_parameter["w"]).max()
    assert np.abs(found.double().numpy() - by_parameter["w"]).max() <= 2 * torch.finfo(dtype).eps * largest


def test_a_norm_too_large_for_float16():
    """3,072 entries of 10: |g|^2 = 307,200, where float16 ends at 65,504."""
    critic = Linear(3072).half()
    with torch.no_grad():
        critic.w.fill_(10)
    real, fake = (images(seed, torch.float16, (2, 3, 32, 32)) / 100 for seed in (1, 2))
    assert penalties.gradient_penalty(critic, real, fake).item() == pytest.approx(
        10 * (307_200**0.5 - 1) ** 2, rel=1e-6
    )


@pytest.mark.parametrize("name", PENALTIES)
def test_autocast(name):
    """Float32 images and bfloat16 products: the gradient is the weight as bfloat16, its norm is in float32."""
    critic = nn.Sequential(nn.Flatten(), nn.Linear(SIZE, 1))
    function, formula = PENALTIES[name]
    with torch.autocast("cpu", torch.bfloat16):
        fake = images(2, torch.float32) if name == "r2" else images(2, torch.bfloat16)
        penalty = function(critic, images(1, torch.float32), fake)
    norm = critic[1].weight.detach().bfloat16().double().norm().numpy()
    assert penalty.dtype == torch.float32
    assert penalty.item() == pytest.approx(float(formula.value(norm)), rel=1e-5)
    (found,) = torch.autograd.grad(penalty, critic[1].weight)
    exact = formula.slope(norm) / norm * critic[1].weight.detach().double()
    assert (found - exact).abs().max() <= 0.02 * exact.abs().max()


def test_dtypes_of_real_and_fake_may_differ():
    record = Recorder(Linear(SIZE).float())
    for real, fake in (
        (torch.float32, torch.bfloat16),
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.bfloat16),
    ):
        penalties.gradient_penalty(record, images(1, real), images(2, fake)).backward()
    assert all(x.dtype == torch.float32 for x in record.seen)


def test_zero_gradients_are_finite():
    """v = 0 makes g = 0: the penalty is w c^2, every derivative zero; samples beside it keep theirs."""
    for name, (function, formula) in PENALTIES.items():
        critic = Hidden(SIZE)
        with torch.no_grad():
            critic.v.zero_()
        penalty = function(critic, images(1), images(2))
        assert penalty.item() == pytest.approx(float(formula.value(np.zeros(()))), rel=1e-15), name
        assert all(not g.any() for g in torch.autograd.grad(penalty, [critic.w, critic.b, critic.v]))
    x = images(1).mul_(torch.tensor([0.0, 1, 1, 0, 1], dtype=torch.float64).view(-1, 1, 1, 1)).requires_grad_()
    critic = closed_form.Quadratic(SIZE)
    with torch.no_grad():
        critic.b.zero_()  # g = S x
    record = Recorder(critic)
    compare(penalties.gradient_penalty(record, x, x), critic, record.seen[0], two_sided(10, 1), 1e-13)


def test_interpolation_is_one_number_a_sample():
    record = Recorder(Linear(SIZE))
    real, fake = images(1, shape=(64, 2, 3, 4)), images(2, shape=(64, 2, 3, 4))
    state = torch.get_rng_state()
    generator = torch.Generator().manual_seed(5)
    first = penalties.gradient_penalty(record, real, fake, generator=generator)
    penalties.gradient_penalty(record, real, fake, generator=generator.manual_seed(5))
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(*record.seen)
    t = ((record.seen[0] - real) / (fake - real)).flatten(1)
    assert (t - t[:, :1]).abs().max() < 1e-9
    t = t[:, 0].detach()
    assert 0 <= t.min() < 0.1 and 0.9 < t.max() < 1 and abs(t.mean() - 0.5) < 0.15
    assert first.grad_fn is not None and record.seen[0].is_leaf


def test_dragan_perturbs_upwards_within_half_a_standard_deviation():
    record = Recorder(Linear(3000))
    real = images(1, shape=(64, 3, 10, 100)) * 3 + 1
    penalties.dragan_penalty(record, real, generator=torch.Generator().manual_seed(5))
    reach = 0.5 * np.sqrt(((real.numpy() - real.numpy().mean()) ** 2).mean())
    step = ((record.seen[0] - real) / reach).flatten(1).detach()
    assert step.min() >= 0 and step.max() < 1
    t = step.amax(1)  # 3,000 uniform numbers times t: the largest is t, nearly
    assert (step.mean(1) / t - 0.5).abs().max() < 0.03
    assert t.min() < 0.1 and t.max() > 0.9


def test_images_are_constants():
    real, fake = images(1).requires_grad_(), images(2).requires_grad_()
    for penalty in (penalties.gradient_penalty, lambda critic, r, f: penalties.dragan_penalty(critic, r)):
        penalty(Hidden(SIZE), real, fake).backward()
    assert real.grad is None and fake.grad is None


def test_the_loss_may_follow_the_penalty():
    critic, x = Hidden(SIZE), images(1).requires_grad_()
    logits = critic(x)
    penalty = penalties.r1_penalty(logits, x, 2.0)
    (nn.functional.softplus(-logits).mean() + penalty).backward()
    assert critic.v.grad is not None


class Conditional(nn.Module):
    """o = <w[label], x> s: g is a row of w, times s."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, SIZE, dtype=torch.float64))

    def forward(self, x: Tensor, labels: Tensor, *, strength: float) -> Tensor:
        return (x.flatten(1) * self.w[labels]).sum(1) * strength


def test_conditional_critics():
    critic, labels = Conditional(), torch.tensor([0, 2, 2, 1, 0])
    kwargs = {"labels": labels, "strength": 0.5}
    expected = 10 * (0.5 * critic.w[labels].norm(dim=1) - 1).square().mean()
    (exact,) = torch.autograd.grad(expected, critic.w)
    for penalty in (
        penalties.gradient_penalty(critic, images(1), images(2), critic_kwargs=kwargs),
        penalties.dragan_penalty(critic, images(1), critic_kwargs=kwargs),
    ):
        torch.testing.assert_close(penalty, expected)
        torch.testing.assert_close(torch.autograd.grad(penalty, critic.w)[0], exact)


class Maps(nn.Module):
    """Two maps of logits, [N, 1, 2, 3] and [N, 4], and one that no image reaches: g is the sum of all rows of w."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(10, SIZE, dtype=torch.float64) / 3)

    def forward(self, x: Tensor) -> list[Tensor]:
        o = x.flatten(1) @ self.w.T
        return [o[:, :6].reshape(-1, 1, 2, 3), o[:, 6:], torch.ones(len(x), 1)]


@pytest.mark.parametrize("container", [list, tuple])
def test_critics_that_return_several_maps(container):
    critic = Maps()
    g = critic.w.sum(0).detach()
    x = images(1).requires_grad_()
    found = penalties.r1_penalty(container(critic(x)), x, 3.0)
    torch.testing.assert_close(found, 1.5 * g.square().sum())
    torch.testing.assert_close(torch.autograd.grad(found, critic.w)[0], (3.0 * g).expand(10, -1))
    found = penalties.gradient_penalty(lambda y: container(critic(y)), images(1), images(2))
    torch.testing.assert_close(found, 10 * (g.norm() - 1).square())


def test_torch_func_and_compile_give_the_same():
    critic, real, fake = Hidden(SIZE), images(1), images(2)
    parameters = dict(critic.named_parameters())

    def penalty(p: dict[str, Tensor]) -> Tensor:
        torch.manual_seed(7)
        return penalties.gradient_penalty(lambda x: torch.func.functional_call(critic, p, (x,)), real, fake)

    def gradients() -> tuple[Tensor, ...]:
        return torch.autograd.grad(penalties.gradient_penalty(critic, real, fake), list(parameters.values()))

    torch.manual_seed(7)
    expected = gradients()
    point = {name: p.detach() for name, p in parameters.items()}
    by_func = torch.func.grad(penalty)(point)
    _, slope = torch.func.jvp(penalty, (point,), ({name: torch.ones_like(p) for name, p in point.items()},))
    torch.testing.assert_close(slope, sum(g.sum() for g in expected), rtol=1e-12, atol=1e-12)
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        compiled = torch.compile(gradients, fullgraph=True, backend="aot_eager")
        torch.manual_seed(7)
        by_compile = compiled()
    for a, b, c in zip(expected, by_func.values(), by_compile, strict=True):
        torch.testing.assert_close(b, a, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(c, a, rtol=1e-12, atol=1e-12)


def test_r1_refuses_a_transform():
    x = images(1).requires_grad_()
    with pytest.raises(RuntimeError, match=r"inside a torch.func transform; use gradient_penalty"):
        torch.func.grad(lambda w: penalties.r1_penalty(x.flatten(1) @ w, x, 1.0))(torch.ones(SIZE).double())


CRITIC = Linear(SIZE)
LEAF = images(1).requires_grad_()
OTHER = images(2).requires_grad_()
REFUSED = {
    "r1 images without grad": (
        lambda: penalties.r1_penalty(CRITIC(images(1)), images(1), 1.0),
        ValueError,
        "real_images.requires_grad_() before the critic",
    ),
    "r2 images without grad": (
        lambda: penalties.r2_penalty(CRITIC(images(1)), images(1), 1.0),
        ValueError,
        "fake_images.requires_grad_() before the critic",
    ),
    "logits of other images": (
        lambda: penalties.r1_penalty(CRITIC(OTHER), LEAF, 1.0),
        ValueError,
        "do not depend on the images",
    ),
    "detached logits": (
        lambda: penalties.r1_penalty(CRITIC(LEAF).detach(), LEAF, 1.0),
        ValueError,
        "do not depend on the images",
    ),
    "a critic that ignores its images": (
        lambda: penalties.gradient_penalty(lambda x: CRITIC.b.expand(len(x)), LEAF, OTHER),
        ValueError,
        "do not depend on the images",
    ),
    "a mean of logits": (
        lambda: penalties.r1_penalty(CRITIC(LEAF).mean(), LEAF, 1.0),
        ValueError,
        "logits of shape [] for 5 images; expected one row a sample, [5, ...]",
    ),
    "logits of another batch": (
        lambda: penalties.gradient_penalty(lambda x: CRITIC(x)[:3], LEAF, OTHER),
        ValueError,
        "logits of shape [3] for 5 images",
    ),
    "logits that are no tensor": (
        lambda: penalties.r1_penalty({"logits": CRITIC(LEAF)}, LEAF, 1.0),
        TypeError,
        "a tensor or a list of tensors, but got dict",
    ),
    "lists of lists": (
        lambda: penalties.r1_penalty([[CRITIC(LEAF)]], LEAF, 1.0),
        TypeError,
        "but got list of list",
    ),
    "an empty batch": (
        lambda: penalties.gradient_penalty(CRITIC, images(1)[:0], images(2)[:0]),
        ValueError,
        "shape [0, 2, 3, 4]; expected a batch of at least one",
    ),
    "an empty batch for dragan": (
        lambda: penalties.dragan_penalty(CRITIC, images(1)[:0]),
        ValueError,
        "expected a batch of at least one",
    ),
    "an empty batch for r1": (
        lambda: penalties.r1_penalty(CRITIC(LEAF[:0]), LEAF[:0], 1.0),
        ValueError,
        "expected a batch of at least one",
    ),
    "shapes": (
        lambda: penalties.gradient_penalty(CRITIC, images(1), images(2)[:3]),
        ValueError,
        "[5, 2, 3, 4] and fake ones of shape [3, 2, 3, 4]",
    ),
    "devices": (
        lambda: penalties.gradient_penalty(CRITIC, images(1), images(2).to("meta")),
        ValueError,
        "real images on cpu and fake ones on meta",
    ),
    "bytes": (
        lambda: penalties.dragan_penalty(CRITIC, images(1).byte()),
        TypeError,
        "float16 tensor, but got torch.uint8",
    ),
    "a negative center": (
        lambda: penalties.gradient_penalty(CRITIC, images(1), images(2), center=-1.0),
        ValueError,
        "center=-1.0",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_with_one_clear_line(case):
    call, error, message = REFUSED[case]
    with pytest.raises(error, match=re.escape(message)) as caught:
        call()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_refused_without_grad_mode(name, mode):
    with (
        mode(),
        pytest.raises(RuntimeError, match=r"_penalty differentiates the critic, which torch.no_grad\(\) forbids"),
    ):
        PENALTIES[name][0](CRITIC, images(1), images(2))
