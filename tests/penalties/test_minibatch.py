"""Batch layers against their formulas written as loops over samples, in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from gan_fast import ops
from gan_fast.penalties import MinibatchDiscrimination, MinibatchStdDev
from support.checks import check_derivatives
from support.tolerances import assert_close


def deviation_by_loops(x: Tensor, group_size: int | None, channels: int) -> Tensor:
    """`[N, channels]`, in Python numbers, place by place."""
    samples, width = x.shape[:2]
    groups = max(1, samples // (group_size or samples))
    run = width // channels
    out = torch.empty(samples, channels, dtype=torch.float64)
    for i in range(samples):
        members = [j for j in range(samples) if j % groups == i % groups]
        for f in range(channels):
            columns = x[members, f * run : (f + 1) * run].flatten(1).T.tolist()
            total = 0.0
            for column in columns:
                mean = math.fsum(column) / len(column)
                total += math.sqrt(math.fsum((v - mean) ** 2 for v in column) / len(column) + 1e-8)
            out[i, f] = total / len(columns)
    return out


@given(
    samples=st.integers(1, 11),
    group_size=st.sampled_from([None, 1, 2, 3, 4, 16]),
    channels=st.sampled_from([1, 2, 3]),
    places=st.sampled_from([(), (5,), (2, 3), (1, 2, 2)]),
)
def test_deviation_formula(samples, group_size, channels, places):
    x = torch.randn(samples, 6, *places, dtype=torch.float64)
    got = MinibatchStdDev(group_size, channels)(x)
    assert got.shape == (samples, 6 + channels, *places) and torch.equal(got[:, :6], x)
    expected = deviation_by_loops(x, group_size, channels).view(samples, channels, *[1] * len(places))
    assert_close(got[:, 6:], expected.expand(-1, -1, *places), kind="reduced")


def test_groups_are_stylegan2s_where_they_divide():
    """StyleGAN2 reshapes [N] to [group_size, N / group_size]: samples 0, 2, 4 of six belong together at size three."""
    x = torch.zeros(6, 1, 2, 2)
    x[4] = 3.0
    got = MinibatchStdDev(3)(x)[:, 1, 0, 0]
    torch.testing.assert_close(got, torch.tensor([2.0**0.5, 1e-4]).repeat(3))


def test_the_function_is_the_layer_to_second_order():
    x = torch.randn(7, 6, 2, 3, dtype=torch.float64).requires_grad_()
    assert torch.equal(ops.minibatch_stddev(x, 3, 2), MinibatchStdDev(3, 2)(x))
    check_derivatives(lambda a: ops.minibatch_stddev(a, 3, 2), [x])
    for arguments, message in (((0, 1), "group_size=0"), ((4, 0), "channels=0"), ((4, 4), "not divisible by 4")):
        with pytest.raises(ValueError, match=f"minibatch_stddev got .*{message}"):
            ops.minibatch_stddev(x, *arguments)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_float32_statistics(dtype, device):
    """Squares of 1000 are beyond float16."""
    x = torch.randn(10, 4, 5, 3, device=device).mul(1000).to(dtype)
    got = MinibatchStdDev(4, 2)(x)
    assert got.dtype == dtype
    expected = deviation_by_loops(x.cpu().double(), 4, 2)[:, :, None, None].expand(-1, -1, 5, 3)
    assert_close(got[:, 4:], expected.to(device), kind="reduced")

    layer = MinibatchDiscrimination(6, 3, 2).to(device, dtype)
    x = torch.randn(10, 6, device=device).to(dtype)
    got = layer(x)
    assert got.dtype == dtype
    projected = (x @ layer.weight.flatten(1)).view(10, 3, 2)  # rounded to dtype as the layer's own
    assert_close(got[:, 6:], closeness_by_loops(projected.cpu().double()).to(device), kind="reduced")


def test_channels_last_is_kept(device):
    x = torch.randn(8, 6, 4, 5, device=device).contiguous(memory_format=torch.channels_last)
    got = MinibatchStdDev()(x)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, MinibatchStdDev()(x.contiguous()))


def closeness_by_loops(projected: Tensor) -> Tensor:
    """o_i,b `[N, B]` of M `[N, B, C]`, in Python numbers."""
    m = projected.tolist()
    rows = []
    for i, mine in enumerate(m):
        row = []
        for b in range(len(mine)):
            others = [m[j] for j in range(len(m)) if j != i]
            row.append(math.fsum(math.exp(-sum(abs(p - q) for p, q in zip(mine[b], o[b]))) for o in others))  # noqa: B905
        rows.append(row)
    return torch.tensor(rows, dtype=torch.float64)


@pytest.mark.parametrize("samples", [1, 2, 7])
def test_discrimination_formula(samples):
    layer = MinibatchDiscrimination(6, 4, 3).double()
    x = torch.randn(samples, 6, dtype=torch.float64)
    got = layer(x)
    assert got.shape == (samples, 10) and torch.equal(got[:, :6], x)
    projected = torch.einsum("na,abc->nbc", x, layer.weight.detach())
    assert_close(got.detach()[:, 6:], closeness_by_loops(projected), kind="reduced")


@pytest.mark.parametrize("samples", [4, 5])
def test_derivatives(samples):
    x = torch.randn(samples, 4, 2, dtype=torch.float64, requires_grad=True)
    check_derivatives(MinibatchStdDev(2, 2), [x])
    layer = MinibatchDiscrimination(8, 2, 2).double()
    check_derivatives(
        lambda x, w: torch.func.functional_call(layer, {"weight": w}, x),
        [x.detach().flatten(1).requires_grad_(), layer.weight],
    )


@pytest.mark.parametrize(
    "layer", [MinibatchStdDev(4), MinibatchDiscrimination(6, 2, 3)], ids=lambda m: type(m).__name__
)
def test_finite_where_all_samples_are_equal(layer):
    x = torch.ones(5, 6).requires_grad_()
    (g,) = torch.autograd.grad(layer(x).square().sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(g.square().sum(), x)
    assert bool(g.isfinite().all()) and bool(second.isfinite().all())


def test_errors():
    with pytest.raises(ValueError, match="not divisible"):
        MinibatchStdDev(channels=4)(torch.ones(4, 6, 2, 2))
    for layer in (MinibatchStdDev(), MinibatchDiscrimination(6, 2, 2)):
        with pytest.raises(ValueError, match="at least one sample"):
            layer(torch.ones(0, 6))
    with pytest.raises(ValueError, match="flatten"):
        MinibatchDiscrimination(6, 2, 2)(torch.ones(4, 6, 1))
    with pytest.raises(ValueError, match="group_size=0"):
        MinibatchStdDev(0)
    with pytest.raises(ValueError, match="channels=0"):
        MinibatchStdDev(4, 0)
    with pytest.raises(ValueError, match="kernels=0"):
        MinibatchDiscrimination(6, 0, 2)
