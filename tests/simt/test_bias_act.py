"""bias_act's CUDA side, host code and kernels, run by the emulator and compared with the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from gan_fast.reference import bias_act as reference
from gan_fast.reference.bias_act import ACTIVATIONS
from simt import emulated, runner
from support.strategies import draw_values, lay_out
from support.tolerances import DTYPES, assert_close

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(runner.unavailable() is not None, reason=str(runner.unavailable()))]

# (shape, layout): rows of packets and of single elements, several tiles, few and many channels, single pixels
SHAPES = [
    ((2, 3, 8, 12), "contiguous"),
    ((2, 5, 7, 9), "contiguous"),
    ((1, 2, 40, 70), "contiguous"),
    ((2, 3, 6, 5), "channels_last"),
    ((2, 16, 7, 7), "channels_last"),
    ((1, 264, 3, 3), "channels_last"),
    ((3, 40, 1, 1), "contiguous"),
    ((2, 3, 4, 5), "sliced"),
]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    emulated.configure()
    yield
    torch.use_deterministic_algorithms(False)


def close(found: Tensor, exact: Tensor, what: str) -> None:
    if exact.numel() == 0:
        assert found.shape == exact.shape, what
    else:
        assert_close(found, exact, kind="reduced", magnitude=exact.abs().max(), what=what)


def check(act: str, dtype: torch.dtype, shape: tuple[int, ...], layout: str, clamp: float, parameters: int) -> None:
    """All three passes; bit 1 of `parameters`: b, bit 2: scale, bit 4: noise."""
    code, ops = ACTIVATIONS[act].code, emulated.ops()
    numbers = (1, code, 0.3, 1.4, clamp)
    n, c, *spatial = shape
    x, dy, tx = (lay_out(draw_values(shape, "normal", seed, dtype) / 2, layout) for seed in range(3))
    small = [(c,), (n, c), (1, 1, *spatial) if parameters & 8 else (n, 1, *spatial)]
    wide = torch.float32 if dtype == torch.bfloat16 else dtype
    given = [draw_values(s, "normal", 5 + i, wide) / 2 if parameters >> i & 1 else None for i, s in enumerate(small)]
    moved = [t if t is None else torch.randn(t.shape).to(t.dtype) for t in given]
    y = ops.bias_act(x, *given, *numbers)
    assert y.stride() == torch.empty_like(x).stride()
    doubles = [None if t is None else t.double() for t in given]
    exact = reference.bias_act(x.double(), *doubles, *numbers)
    close(y, exact, "y")
    reads_input = reference.reads_input(code, 0.3)
    reads_result = not reads_input and (act != "linear" or clamp >= 0)
    needs_x = reads_input or given[1] is not None
    tensors = (x if needs_x else None, y if reads_result else None)
    doubles_xy = (x.double() if needs_x else None, y.double() if reads_result else None)
    bound = float(torch.tensor(clamp, dtype=dtype))  # the clamp as y holds it
    exact_numbers = (*numbers[:-1], bound)
    wanted = [True, *(t is not None for t in given)]
    found = ops.bias_act_backward(dy, *tensors, *given, *numbers, wanted)
    expected = reference.bias_act_backward(dy.double(), *doubles_xy, *doubles, *exact_numbers, wanted)
    for a, e, what in zip(found, expected, ("dx", "db", "dscale", "dnoise"), strict=True):
        close(a, e, what)
    cotangents = (tx, *moved)
    found = ops.bias_act_double_backward(*cotangents, dy, *tensors, *given, *numbers, [True, *wanted])
    wide_cotangents = [None if t is None else t.double() for t in cotangents]
    expected = reference.bias_act_double_backward(
        *wide_cotangents, dy.double(), *doubles_xy, *doubles, *exact_numbers, [True, *wanted]
    )
    for a, e, what in zip(found, expected, ("ddy", "dx", "db", "dscale", "dnoise"), strict=True):
        close(a, e, f"second order {what}")


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("act", ACTIVATIONS)
def test_every_activation(act, dtype):
    shape, layout = SHAPES[(len(act) + DTYPES.index(dtype)) % len(SHAPES)]
    check(act, dtype, shape, layout, -1.0, 7)
    check(act, dtype, (2, 3, 4, 5), "contiguous", 1e4, 3)


@pytest.mark.parametrize(("shape", "layout"), SHAPES)
def test_every_shape_and_set_of_parameters(shape, layout):
    for parameters in (0, 1, 2, 5, 7, 15):
        check("lrelu", torch.float32, shape, layout, -1.0, parameters)
    check("linear", torch.bfloat16, shape, layout, -1.0, 2)
    check("swish", torch.float16, shape, layout, -1.0, 15)


def test_clamp_and_nothing():
    x = torch.tensor([[0.9, 0.5, -0.9, 0.1]], dtype=torch.bfloat16)
    numbers = (1, ACTIVATIONS["lrelu"].code, 1.0, 1.0, 0.7)
    y = emulated.ops().bias_act(x, None, None, None, *numbers)
    dx = emulated.ops().bias_act_backward(
        torch.ones_like(x), None, y, None, None, None, *numbers, [True, False, False, False]
    )[0]
    assert dx.tolist() == [[0, 1, 0, 1]]
    for shape in ((0, 3, 2, 2), (2, 0, 2, 2), (2, 3, 0, 2)):
        check("swish", torch.float32, shape, "contiguous", -1.0, 7)
    emulated.take_launch_count()
    emulated.ops().bias_act(torch.randn(2, 3, 4, 4), torch.randn(3), torch.randn(2, 3), torch.randn(4, 4), *numbers)
    assert emulated.take_launch_count() == 1


@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_repeats_in_any_order_of_blocks(order):
    x, dy = torch.randn(2, 2, 2, 40, 50)
    args = (dy, x, None, torch.randn(2), torch.randn(2, 2), torch.randn(40, 50), 1, 8, 0.0, 1.0, -1.0, [True] * 4)
    expected = emulated.ops().bias_act_backward(*args)
    emulated.configure(order=order)
    for a, b in zip(emulated.ops().bias_act_backward(*args), expected, strict=True):
        assert torch.equal(a, b)
