"""upfirdn2d's CUDA side, host code and kernels, run by the emulator: every kernel against the float64 reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from gan_fast.reference import upfirdn2d as reference
from simt import emulated, runner
from support.strategies import draw_values, lay_out
from support.tolerances import DTYPES, assert_close

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(runner.unavailable() is not None, reason=str(runner.unavailable()))]


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Empty tensors are NaN, so that what no kernel writes shows."""
    torch.use_deterministic_algorithms(True)
    emulated.configure()
    yield
    torch.use_deterministic_algorithms(False)


class Case(NamedTuple):
    shape: tuple[int, int, int, int]
    layout: str
    taps: tuple[int, ...]  # of the filter; none is the identity
    up: tuple[int, int] = (1, 1)
    down: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (2, 1, 2, 1)
    flip: bool = False


UP, DOWN = ((2, 2), (1, 1)), ((1, 1), (2, 2))
CASES = {
    # 4 x 4 taps, contiguous: rows inside and at the border, one tile and several, several planes a block, odd sides, a
    # lead, rows of taps, a crop
    "up2": Case((1, 2, 9, 40), "contiguous", (4, 4), *UP),
    "up2 with a lead": Case((2, 3, 5, 4), "contiguous", (4, 4), *UP, (1, 2, 3, 1)),
    "up2, one row of taps": Case((1, 5, 3, 3), "sliced", (4,), *UP, (2, 1, 2, 1), True),
    "down2": Case((1, 2, 40, 71), "contiguous", (4, 4), *DOWN, (1, 1, 1, 1)),
    "down2, small": Case((3, 17, 4, 4), "transposed", (4, 4), *DOWN, (2, 1, 1, 1)),
    "filter": Case((1, 2, 35, 70), "contiguous", (4, 4)),
    "filter, one pixel": Case((2, 3, 1, 1), "contiguous", (4, 4)),
    "filter, crop": Case((1, 1, 40, 9), "contiguous", (4, 4), padding=(-2, 3, 1, -1)),
    # 4 x 4 taps, channels_last
    "up2 last": Case((1, 8, 12, 6), "channels_last", (4, 4), *UP),
    "up2 last with a lead": Case((2, 4, 3, 5), "channels_last", (4,), *UP, (1, 3, 3, 2)),
    "down2 last": Case((2, 4, 24, 13), "channels_last", (4, 4), *DOWN, (1, 1, 2, 0)),
    "filter last": Case((1, 12, 14, 9), "channels_last", (4, 4), padding=(-1, 2, 2, 1), flip=True),
    # rows of taps
    "rows up2": Case((1, 2, 7, 20), "contiguous", (12,), *UP, (6, 5, 6, 5)),
    "rows down4": Case((1, 2, 30, 70), "contiguous", (24,), (1, 1), (4, 4), (11, 10, 11, 10), True),
    "rows mixed": Case((2, 1, 9, 13), "sliced", (5,), (3, 2), (2, 3), (-1, 4, 2, 3)),
    "more zeros than taps": Case((1, 1, 5, 6), "contiguous", (2,), (4, 5), (1, 3)),
    # everything else
    "any": Case((2, 3, 5, 6), "contiguous", (3, 5), (2, 1), (1, 2), (4, -1, 2, 3)),
    "any last": Case((2, 3, 5, 6), "channels_last", (4, 4), *UP),
    "any, rows of taps last": Case((1, 3, 6, 7), "channels_last", (12,), *DOWN, (5, 5, 5, 5), True),
    "identity": Case((1, 2, 5, 6), "contiguous", (), (3, 1), (1, 2), (0, 2, -1, 1)),
}


def check(case: Case, dtype: torch.dtype) -> Tensor:
    f = draw_values(case.taps, "normal", 2, torch.float32) / 2 if case.taps else None
    x = lay_out(draw_values(case.shape, "normal", 1, dtype), case.layout)
    fw, fh = reference.taps(f)
    x0, x1, y0, y1 = case.padding
    width = (case.shape[3] * case.up[0] + x0 + x1 - fw) // case.down[0] + 1
    height = (case.shape[2] * case.up[1] + y0 + y1 - fh) // case.down[1] + 1
    emulated.take_launch_count()
    y = emulated.ops().upfirdn2d(x, f, list(case.up), list(case.down), [x0, y0], [width, height], case.flip, -1.5)
    assert emulated.take_launch_count() == 1 and y.dtype == dtype
    last = case.layout == "channels_last"
    assert y.is_contiguous(memory_format=torch.channels_last if last else torch.contiguous_format)
    rest = (case.up, case.down, case.padding, case.flip)
    exact = reference.upfirdn2d(x.double(), f, *rest, -1.5)
    magnitude = reference.upfirdn2d(x.double().abs(), None if f is None else f.abs(), *rest, 1.5)
    assert_close(y, exact, magnitude=magnitude)
    return y


@pytest.mark.parametrize("name", CASES)
def test_against_the_reference(name: str) -> None:
    for dtype in DTYPES:
        check(CASES[name], dtype)


@pytest.mark.parametrize("order", ["reverse", "shuffled"])
def test_any_order_of_blocks(order: str) -> None:
    for name in ("filter", "rows up2", "up2 last"):
        expected = check(CASES[name], torch.float32)
        emulated.configure(order=order)
        assert torch.equal(check(CASES[name], torch.float32), expected)
        emulated.configure()


def test_numbers_beyond_32_bits() -> None:
    f = torch.ones(4, 4)
    for x in (torch.randn(1, 4, 6, 6), torch.randn(1, 4, 6, 6).contiguous(memory_format=torch.channels_last)):
        y = emulated.ops().upfirdn2d(x, f, [1, 1], [1, 1], [2**33, 2], [5, 6], False, 1.0)
        assert torch.equal(y, torch.zeros(1, 4, 6, 5))


def test_nothing_is_launched_for_an_empty_batch() -> None:
    emulated.take_launch_count()
    x = torch.zeros(0, 3, 4, 4)
    assert emulated.ops().upfirdn2d(x, None, [1, 1], [1, 1], [0, 0], [4, 4], False, 1.0).shape == (0, 3, 4, 4)
    assert emulated.take_launch_count() == 0
