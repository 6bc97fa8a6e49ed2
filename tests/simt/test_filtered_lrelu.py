"""filtered_lrelu's CUDA side: host code and kernels in the emulator against the reference, and under the sanitizers."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor

from gan_fast.reference import filtered_lrelu as reference
from simt import emulated
from simt import runner as simt
from support.reference_runner import eighths
from support.strategies import lay_out

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(simt.unavailable() is not None, reason=str(simt.unavailable()))]

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.bfloat16: 8e-3, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def poisoned() -> Iterator[None]:
    """Empty tensors are poisoned, so that what no kernel writes shows."""
    torch.use_deterministic_algorithms(True)
    emulated.configure()
    yield
    torch.use_deterministic_algorithms(False)


def taps(*shape: int) -> Tensor:
    return eighths(torch.empty(shape), sum(shape))


def close(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert found.dtype == dtype and found.stride() == expected.stride()
    scale = float(expected.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=TOLERANCE[dtype] * scale)


# fu, fd, up, down, padding, clamp, flip, shape: several tiles with a tail each way, rows that fill no byte of the mask,
# crops, factors that are no powers of two, filters too large for the largest tile
CASES = {
    "up2_down2": (taps(12), taps(12), 2, 2, [11, 10, 11, 10], 50.0, False, (1, 2, 35, 37)),
    "matrix": (taps(3, 4), taps(4, 5), 2, 2, [3, 2, 4, 1], None, True, (2, 1, 6, 7)),
    "odd": (taps(5), taps(7, 2), 3, 2, [5, -2, 8, 1], 5.0, False, (1, 3, 9, 8)),
    "none": (None, None, 2, 4, [0, 1, 2, 0], 1.0, False, (1, 2, 7, 9)),
    "up4_down2": (taps(24), taps(12, 12), 4, 2, [14, 13, 14, 13], None, False, (1, 1, 5, 6)),
}


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("case", CASES)
def test_against_the_reference(case: str, dtype: torch.dtype) -> None:
    fu, fd, up, down, padding, clamp, flip, shape = CASES[case]
    ops, phases = emulated.ops(), math.lcm(up, down)
    for layout in ("contiguous", "channels_last") if dtype == torch.float32 else ("contiguous",):
        x, b = lay_out(eighths(torch.empty(shape, dtype=dtype), 1), layout), eighths(torch.empty(shape[1]), 2)
        arguments = (b, up, down, padding, 1.4, 0.2, clamp, flip)
        emulated.take_launch_count()
        y, mask = ops.filtered_lrelu(x, fu, fd, *arguments, True)
        assert emulated.take_launch_count() == 1
        exact, exact_mask = reference.filtered_lrelu_op(x.double(), fu, fd, *arguments, True)
        close(y, exact, dtype)
        size = reference.intermediate_size(fd, down, y.shape[2:])
        assert torch.equal(*(reference.unpack(m, phases, *size) for m in (mask, exact_mask)))
        assert mask.stride() == exact_mask.stride()
        without, none = ops.filtered_lrelu(x, fu, fd, *arguments, False)
        assert torch.equal(without, y) and none.numel() == 0
        shared = (up, down, padding, 1.4, 0.2, flip)
        v, dy = lay_out(eighths(x, 5), layout), lay_out(eighths(y, 6), layout)
        close(
            ops.filtered_lrelu_tangent(v, fu, fd, mask, *shared),
            reference.filtered_lrelu_tangent(v.double(), fu, fd, mask, *shared),
            dtype,
        )
        close(
            ops.filtered_lrelu_backward(dy, fu, fd, mask, list(shape[2:]), *shared),
            reference.filtered_lrelu_backward(dy.double(), fu, fd, mask, shape[2:], *shared),
            dtype,
        )


def test_blocks_in_any_order_write_the_same_mask() -> None:
    x, f = torch.randn(1, 1, 35, 36), taps(12)
    arguments = (x, f, f, None, 2, 2, [11, 10, 11, 10], 1.4, 0.2, 3.0, False, True)
    expected = emulated.ops().filtered_lrelu(*arguments)
    for order in ("reverse", "shuffled"):
        emulated.configure(order=order)
        for a, b in zip(emulated.ops().filtered_lrelu(*arguments), expected, strict=True):
            assert torch.equal(a, b)


def test_nothing_and_too_large_a_filter() -> None:
    y, mask = emulated.ops().filtered_lrelu(
        torch.zeros(0, 3, 4, 4), None, None, None, 2, 2, [0] * 4, 1.0, 0.2, None, False, True
    )
    assert y.shape == (0, 3, 4, 4) and mask.numel() == 0
    large = torch.ones(120)
    with pytest.raises(ValueError, match="no room for filters of 120 x 120"):
        emulated.ops().filtered_lrelu(
            torch.zeros(1, 1, 4, 4), large, large, None, 1, 1, [120] * 4, 1.0, 0.2, None, False, False
        )


# ---- Under the sanitizers: the arguments as csrc/filtered_lrelu declares them


class Axis(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_longlong) for name in ("in_", "out", "start", "width", "offset", "mask")),
        *((name, ctypes.c_int) for name in ("up_taps", "down_taps")),
    ]


class Pass(ctypes.Structure):
    _fields_ = [
        *((name, simt.Pointer) for name in ("x", "y", "bias", "mask", "hu", "hd")),
        *((name, Axis) for name in ("horizontal", "vertical")),
        *((name, ctypes.c_longlong) for name in ("samples", "channels")),
        *((name, ctypes.c_double) for name in ("pos", "neg", "limit")),
        *((name, ctypes.c_int) for name in ("use", "up", "down", "phases")),
        *((name, ctypes.c_int) for name in ("hu_matrix", "hd_matrix", "reversed", "channels_last")),
    ]


class Arguments(ctypes.Structure):
    _fields_ = [
        ("pass_", Pass),
        *((name, ctypes.c_longlong) for name in ("tiles_x", "tiles_y")),
        *((name, ctypes.c_int) for name in ("tile_w", "tile_h", "in_w", "in_h", "t_w", "t_h", "hu_count", "hd_count")),
        *((name, ctypes.c_int) for name in ("hd_at", "in_at", "a_at", "t_at", "b_at")),
        *((name, ctypes.c_int) for name in ("up_shift", "phase_shift")),
    ]


UP, DOWN, TAPS, TILE = 2, 2, 4, 4


def launch(variant: str, dtype: type, matrix: bool, use: int, channels_last: bool) -> list[np.ndarray]:
    """A pass over two channels of a 7 x 5 image: results 7 x 5 too, in four tiles with tails."""
    name = {np.float32: "f32", np.float64: "f64", np.float16: "f16"}[dtype]
    wide = np.float64 if dtype is np.float64 else np.float32
    random = np.random.default_rng(0)
    height, width = 7, 5
    axes = [Axis(n, n, 3, (n - 1) * DOWN + TAPS, 0, (n - 1) * DOWN + TAPS, TAPS, TAPS) for n in (width, height)]
    rows, columns = -(-axes[1].mask // 4), -(-axes[0].mask // 2) * 2
    x = simt.Buffer(random.standard_normal(2 * height * width).astype(dtype))
    y = simt.Buffer.poisoned((2 * height * width,), dtype)
    mask = simt.Buffer(np.full(2 * rows * columns, 0x24 if use == 2 else 0xFF, np.uint8))
    f = [simt.Buffer(random.standard_normal(TAPS * TAPS if matrix else TAPS).astype(wide)) for _ in range(2)]
    t_w = (TILE - 1) * DOWN + TAPS + UP - 1
    t_h = -(-((TILE - 1) * DOWN + TAPS + 3) // 4) * 4
    in_w, in_h = (t_w + TAPS - 2) // UP + 1, (t_h + TAPS - 2) // UP + 1
    count = TAPS * TAPS if matrix else TAPS
    t_at = 2 * count
    second = t_at + max(t_w * t_h, 0 if matrix else in_w * in_h)
    total = second + max(in_w * in_h if matrix else in_h * t_w, 0 if matrix else TILE * t_w)
    a = Arguments(
        Pass(
            simt.pointer(x), simt.pointer(y), simt.pointer(simt.Buffer(np.ones(2, wide))), simt.pointer(mask),
            simt.pointer(f[0]), simt.pointer(f[1]), axes[0], axes[1], 1, 2, 4.0, 0.8, 2.0, use, UP, DOWN, 2,
            matrix, matrix, 1, channels_last,
        ),
        2, 2, TILE, TILE, in_w, in_h, t_w, t_h, count, count,
        count, second if matrix else t_at, second, t_at, second, 1, 1,
    )  # fmt: skip
    names = emulated.kernel_names(emulated.CSRC / "filtered_lrelu" / "filtered_lrelu.cu")
    program = simt.build("csrc/filtered_lrelu/filtered_lrelu.cu", names, variant)
    bytes_ = total * np.dtype(wide).itemsize
    program.launch(f"filtered_lrelu_{name}", grid=8, block=256, arguments=a, shared_bytes=bytes_)
    return [y.array, mask.array]


@pytest.mark.parametrize("variant", ["memory", "threads"])
def test_kernel_under_sanitizer(variant: str) -> None:
    for case in ((np.float32, False, 1, False), (np.float16, True, 2, True), (np.float64, False, 0, False)):
        plain, checked = launch("plain", *case), launch(variant, *case)
        for found, expected in zip(checked, plain, strict=True):
            np.testing.assert_array_equal(found, expected)
        assert not np.isnan(plain[0].astype(np.float64)).any()
        if case[2] == 1:
            assert not (plain[1] == 0xFF).any()
