"""The CUDA side of every op, host code and kernels, run by the emulator and compared with the float64 reference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from gan_fast.reference import adversarial_loss as reference
from gan_fast.reference import binary_cross_entropy as bce_reference
from gan_fast.reference import gradient_penalty as penalty_reference
from gan_fast.reference import l1_distance as l1_reference
from gan_fast.reference import softplus as softplus_reference
from gan_fast.reference.adversarial_loss import MEAN, NONE, SUM, Kind
from simt import emulated, runner
from support.strategies import lay_out

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(runner.unavailable() is not None, reason=str(runner.unavailable()))]

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]
# Terms are computed in the accumulation type and rounded once to the storage type: a few ulps of the wider of both.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}
# A reduced loss has the accumulation type whatever the storage type.
LOSS_TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 2e-6, torch.float16: 2e-6}
TERMS = {
    Kind.LINEAR: ([0.0, -1.0, 0.0], [0.0, 1.0, 0.0]),
    Kind.SOFTPLUS: ([-1.0, 1.0, 0.1], [1.0, 1.0, 0.0]),
    Kind.HINGE: ([-1.0, 1.0, 0.0], [1.0, 1.0, 0.0]),
    Kind.SQUARE: ([1.0, 1.0, 0.0], [0.0, 1.0, 0.0]),
    Kind.PAIR: ([-1.0, 1.0, 0.0], [0.0, 0.0, 0.0]),
    Kind.AVERAGE: ([-1.0, 1.0, 0.0], [1.0, 1.0, 0.0]),
}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Empty tensors are NaN, so that what no kernel writes shows; and every kernel leaves its counter at zero."""
    torch.use_deterministic_algorithms(True)
    emulated.configure()
    yield
    torch.use_deterministic_algorithms(False)
    assert emulated.counters_are_zero()


def logits(*shape: int, dtype: torch.dtype, seed: int = 0, scale: float = 3.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (scale * torch.randn(shape, generator=generator, dtype=torch.float64)).to(dtype)


def up(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [t.double() for t in tensors]


def close(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    # rounded to the storage type first, where large values become infinite
    expected = expected.to(actual.dtype)
    torch.testing.assert_close(actual.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def check_adversarial(
    kind: Kind,
    real: list[Tensor],
    fake: list[Tensor],
    real_weight: Sequence[Tensor] = (),
    fake_weight: Sequence[Tensor] = (),
    reductions: Sequence[int] = (MEAN, SUM, NONE),
) -> None:
    """Loss, statistics, gradients (with the forward and by the backward) and terms against the reference."""
    dtype = (real + fake)[0].dtype
    ops, (real_term, fake_term) = emulated.ops(), TERMS[kind]
    inputs = (real, fake, list(real_weight), list(fake_weight), int(kind), real_term, fake_term)
    wide = (up(real), up(fake), up(real_weight), up(fake_weight), int(kind), real_term, fake_term)
    for reduction in reductions:
        if reduction == NONE:
            terms = ops.adversarial_terms(*inputs)
            for actual, expected in zip(terms, reference.adversarial_terms(*wide), strict=True):
                close(actual, expected, TOLERANCE[dtype])
            grads = [logits(*t.shape, dtype=dtype, seed=9) for t in terms]
        else:
            loss, stats, gradients = ops.adversarial_loss(*inputs, reduction, True, True)
            expected_loss, expected_stats = reference.adversarial_loss(*wide, reduction, True)
            # torch.sign of NaN is 0; the kernels of both devices let NaN through
            for i, side in ((3, real), (4, fake)):
                if any(bool(t.isnan().any()) for t in side):
                    expected_stats[i] = float("nan")
            close(loss, expected_loss, LOSS_TOLERANCE[dtype])
            close(stats, expected_stats, LOSS_TOLERANCE[dtype])
            alone, no_stats, no_gradients = ops.adversarial_loss(*inputs, reduction, False, False)
            assert no_stats.numel() == 0 and not no_gradients
            close(alone, expected_loss, LOSS_TOLERANCE[dtype])
            one = [torch.ones((), dtype=torch.float64)]
            for actual, expected in zip(
                gradients, reference.adversarial_loss_backward(one, *wide, reduction), strict=True
            ):
                close(actual, expected, TOLERANCE[dtype])
            grads = [torch.tensor(0.37, dtype=loss.dtype)]
        backward = ops.adversarial_loss_backward(grads, *inputs, reduction)
        expected_all = reference.adversarial_loss_backward(up(grads), *wide, reduction)
        for actual, expected in zip(backward, expected_all, strict=True):
            assert actual.dtype == dtype
            close(actual, expected, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", list(Kind))
def test_adversarial(kind: Kind, dtype: torch.dtype) -> None:
    # one block by warps; then several blocks, with tails
    for seed, (n, reductions) in enumerate(((1, (MEAN,)), (37, (SUM, NONE)), (5003, (MEAN, NONE)))):
        real, fake = logits(n, dtype=dtype, seed=seed), logits(n, dtype=dtype, seed=seed + 50)
        check_adversarial(kind, [real], [fake], reductions=reductions)


@pytest.mark.parametrize("kind", list(Kind))
def test_scales_weights_and_layouts(kind: Kind) -> None:
    dtype = torch.float32
    shapes = [(3, 1, 5, 7), (2, 1, 40, 40), (4, 2), (1, 3, 2, 2)]
    real = [logits(*s, dtype=dtype, seed=i) for i, s in enumerate(shapes)]
    fake = [logits(*s, dtype=dtype, seed=i + 20) for i, s in enumerate(shapes)]
    real[0] = real[0].to(memory_format=torch.channels_last)
    fake[0] = fake[0].expand(3, 1, 5, 7)[..., ::1]
    real[2] = logits(2, 4, dtype=dtype, seed=5).t()
    fake[1] = logits(2, 1, 40, 80, dtype=dtype, seed=6)[..., ::2]
    check_adversarial(kind, real, fake)
    per_sample = [torch.rand(s[0], dtype=torch.float64).add(0.5) for s in shapes]
    per_logit = [torch.rand(s, dtype=torch.float64).add(0.5).float() for s in shapes]
    check_adversarial(kind, real, fake, per_sample, per_logit, reductions=(MEAN, NONE))
    check_adversarial(kind, real, fake, [w.float() for w in per_sample], per_sample, reductions=(SUM,))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_weights_of_packets(dtype: torch.dtype) -> None:
    # per sample with `inner` a multiple of a packet, with one that is not, and per logit
    for inner in (64, 60, 9):
        real, fake = logits(80, inner, dtype=dtype), logits(80, inner, dtype=dtype, seed=1)
        weight = torch.rand(80).add(0.5)
        check_adversarial(Kind.SOFTPLUS, [real], [fake], [weight], [weight[:, None].expand(80, inner)], [MEAN])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_unaligned_memory(dtype: torch.dtype) -> None:
    real, fake = logits(6001, dtype=dtype)[1:], logits(6003, dtype=dtype, seed=1)[3:]
    for kind in (Kind.SOFTPLUS, Kind.PAIR):
        check_adversarial(kind, [real], [fake], reductions=(MEAN,))


def test_more_scales_than_a_launch_holds() -> None:
    n = 21
    real = [logits(5 + 3 * i, dtype=torch.float32, seed=i) for i in range(n)]
    fake = [logits(5 + 3 * i, dtype=torch.float32, seed=i + n) for i in range(n)]
    for kind in (Kind.PAIR, Kind.AVERAGE):
        check_adversarial(kind, real, fake, reductions=(MEAN,))


def test_one_launch_forward_and_one_backward() -> None:
    real = [logits(4, 1, s, s, dtype=torch.float32) for s in (30, 15, 7)]
    for kind, forward, with_gradients, backward in (
        *((k, 1, 1, 1) for k in Kind if k != Kind.AVERAGE),
        (Kind.AVERAGE, 2, 3, 3),
    ):
        inputs = (real, real, [], [], int(kind), *TERMS[kind])
        emulated.take_launch_count()
        emulated.ops().adversarial_loss(*inputs, MEAN, True, False)
        assert emulated.take_launch_count() == forward
        emulated.ops().adversarial_loss(*inputs, MEAN, True, True)
        assert emulated.take_launch_count() == with_gradients
        emulated.ops().adversarial_loss_backward([torch.ones(())], *inputs, MEAN)
        assert emulated.take_launch_count() == backward


@pytest.mark.parametrize("kind", [Kind.SOFTPLUS, Kind.PAIR, Kind.AVERAGE])
def test_results_repeat_bit_for_bit_whatever_block_comes_first(kind: Kind) -> None:
    real, fake = [logits(20011, dtype=torch.float32)], [logits(20011, dtype=torch.float32, seed=1)]
    results = []
    for order in ("forward", "reverse", "shuffled"):
        emulated.configure(order=order, resident_blocks=7)
        loss, stats, gradients = emulated.ops().adversarial_loss(
            real, fake, [], [], int(kind), *TERMS[kind], 1, True, True
        )
        results.append(torch.cat([loss[None], stats, *gradients]))
    assert all(torch.equal(results[0], r) for r in results[1:])


@pytest.mark.parametrize("kind", list(Kind))
def test_extreme_logits_nan_and_empty(kind: Kind) -> None:
    values = torch.tensor([1e4, -1e4, 0.0, -0.0, 1e-30, 88.0, -104.0, 1.0, -1.0])
    check_adversarial(kind, [values], [values.flip(0).contiguous()])
    for special in (float("nan"), float("inf"), -float("inf")):
        x = logits(40, dtype=torch.float32)
        x[17] = special
        check_adversarial(kind, [x], [logits(40, dtype=torch.float32, seed=1)])
    none, some = torch.empty(0), logits(12, dtype=torch.float32)
    if kind != Kind.PAIR:
        check_adversarial(kind, [none, some], [some, none])
    check_adversarial(kind, [none], [none])


def test_one_side_only() -> None:
    for n in (50, 9000):
        check_adversarial(Kind.SOFTPLUS, [], [logits(n, dtype=torch.float32)], reductions=(MEAN,))
        check_adversarial(Kind.HINGE, [logits(n, dtype=torch.float32)], [], reductions=(MEAN,))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_logits", [True, False])
def test_binary_cross_entropy(is_logits: bool, dtype: torch.dtype) -> None:
    ops = emulated.ops()
    for n, (weighted, positive) in itertools.product((1, 100, 6007), ((False, False), (True, True))):
        x = logits(n, dtype=dtype)
        x = x if is_logits else torch.sigmoid(x)
        t = torch.rand(n, generator=torch.Generator().manual_seed(n)).to(dtype)
        if not is_logits and dtype != torch.float64:
            # there the gradient is bounded by torch's floor of 1e-12, which is a float32 even for float64
            x[0], t[0] = 0.0, 1.0
        w = torch.rand(n).add(0.5).to(dtype) if weighted else None
        q = torch.rand(n).add(0.5).to(dtype) if positive and is_logits else None
        wide: list[Any] = [v if v is None else v.double() for v in (x, t, w, q)]
        for reduction in (MEAN, SUM, NONE):
            loss, gradient = ops.binary_cross_entropy(x, t, w, q, is_logits, reduction, True)
            expected = bce_reference.binary_cross_entropy(*wide, is_logits, reduction)
            assert loss.dtype == dtype
            close(loss, expected, TOLERANCE[dtype])
            g = logits(*loss.shape, dtype=dtype, seed=3)
            backward = ops.binary_cross_entropy_backward(g, x, t, w, q, is_logits, reduction)
            close(
                backward,
                bce_reference.binary_cross_entropy_backward(g.double(), *wide, is_logits, reduction),
                8 * TOLERANCE[dtype],
            )
            if reduction != NONE:
                one = torch.ones((), dtype=torch.float64)
                close(
                    gradient,
                    bce_reference.binary_cross_entropy_backward(one, *wide, is_logits, reduction),
                    4 * TOLERANCE[dtype],
                )


def test_probabilities_outside_their_domain_give_nan() -> None:
    for bad in (-0.1, 1.1, float("nan")):
        x = torch.full((300,), 0.5)
        x[123] = bad
        loss, _ = emulated.ops().binary_cross_entropy(x, torch.full((300,), 0.5), None, None, False, MEAN, False)
        assert loss.isnan()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_l1_distance(dtype: torch.dtype) -> None:
    shapes = [(2, 3, 9, 9), (1,), (4, 700), (2, 2)]
    a = [logits(*s, dtype=dtype, seed=i) for i, s in enumerate(shapes)]
    b = [logits(*s, dtype=dtype, seed=i + 9) for i, s in enumerate(shapes)]
    a[0] = a[0].to(memory_format=torch.channels_last)
    b[3] = a[3].clone()
    distance, gradients = emulated.ops().l1_distance(a, b, True)
    close(distance, l1_reference.l1_distance(up(a), up(b)), LOSS_TOLERANCE[dtype])
    g = torch.tensor(0.7, dtype=distance.dtype)
    backward = emulated.ops().l1_distance_backward(g, a, b)
    for grad, factor in ((gradients, torch.ones((), dtype=torch.float64)), (backward, g.double())):
        for actual, expected in zip(grad, l1_reference.l1_distance_backward(factor, up(a), up(b)), strict=True):
            close(actual, expected, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_softplus(dtype: torch.dtype) -> None:
    for n in (0, 1, 77, 5000):
        x = logits(n, dtype=dtype, scale=12.0)
        g = logits(n, dtype=dtype, seed=1)
        for beta, threshold in ((1.0, 20.0), (2.0, 5.0), (-1.0, float("inf"))):
            y = emulated.ops().softplus(x, beta, threshold)
            close(y, softplus_reference.softplus(x.double(), beta, threshold), TOLERANCE[dtype])
            dx = emulated.ops().softplus_backward(g, x, beta, threshold)
            close(
                dx, softplus_reference.softplus_backward(g.double(), x.double(), beta, threshold), 4 * TOLERANCE[dtype]
            )


# (shape, layout): rows for a warp and for blocks, several blocks a row, odd sizes, one sample, none
PENALTY_SHAPES = [
    ((5, 3, 4, 4), "contiguous"),
    ((3, 2, 40, 23), "channels_last"),
    ((11, 7), "contiguous"),
    ((2, 1027), "sliced"),
    ((1, 5000), "contiguous"),
    ((2, 3, 41, 9), "transposed"),
    ((9,), "contiguous"),
    ((0, 3, 4), "contiguous"),
    ((3, 0), "contiguous"),
]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gradient_penalty(dtype: torch.dtype) -> None:
    ops = emulated.ops()
    for (shape, layout), kind in itertools.product(PENALTY_SHAPES, penalty_reference.Kind):
        g = lay_out(logits(*shape, dtype=dtype, scale=1.0), layout)
        if shape[0] > 2:
            g[1] = 0
        args = (int(kind), 0.8 * max(g[:1].double().norm().item(), 0.1), 10.0)
        emulated.take_launch_count()
        penalty, squared_norms = ops.gradient_penalty(g, *args)
        assert emulated.take_launch_count() == 1
        exact, exact_norms = penalty_reference.gradient_penalty(g.double(), *args)
        close(squared_norms, exact_norms, LOSS_TOLERANCE[dtype])
        # a norm near the center: the difference holds the error of the norm
        close(penalty, exact, 20 * LOSS_TOLERANCE[dtype])
        up = torch.tensor(0.7, dtype=penalty.dtype)
        gradient = ops.gradient_penalty_backward(up, g, squared_norms, *args)
        assert emulated.take_launch_count() == (g.numel() > 0)
        assert gradient.stride() == torch.empty_like(g).stride()
        expected = penalty_reference.gradient_penalty_backward(up.double(), g.double(), exact_norms, *args)
        close(gradient, expected, 4 * TOLERANCE[dtype])


@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_gradient_penalty_repeats_in_any_order_of_blocks(order: str) -> None:
    g = logits(2, 9001, dtype=torch.float32)
    expected = emulated.ops().gradient_penalty(g, 1, 1.0, 10.0)
    emulated.configure(order=order)
    for a, b in zip(emulated.ops().gradient_penalty(g, 1, 1.0, 10.0), expected, strict=True):
        assert torch.equal(a, b)
