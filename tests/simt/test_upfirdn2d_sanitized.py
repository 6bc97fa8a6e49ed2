"""upfirdn2d's kernels under ASan + UBSan and under TSan: results equal the plain run's, and no report."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import pytest

from simt import emulated
from simt import runner as simt

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(simt.unavailable() is not None, reason=str(simt.unavailable()))]

THREADS = 256
STORAGE = {"f64": np.float64, "f32": np.float32, "bf16": np.uint16, "f16": np.float16}


class Axis(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int) for name in ("up", "down", "taps", "pixels", "results")),
        ("before", ctypes.c_longlong),
    ]


class Divisor(ctypes.Structure):
    _fields_ = [("by", ctypes.c_uint), ("magic", ctypes.c_uint), ("shift", ctypes.c_int)]

    @classmethod
    def of(cls, by: int) -> Divisor:
        shift = 31 + (by - 1).bit_length()
        return cls(by, -(-(1 << shift) // by), shift)


class Arguments(ctypes.Structure):
    _fields_ = [
        *((name, simt.Pointer) for name in ("x", "y", "f")),
        *((name, ctypes.c_int) for name in ("matrix", "flip")),
        ("gain", ctypes.c_double),
        *((name, Axis) for name in ("horizontal", "vertical")),
        *((name, ctypes.c_longlong) for name in ("samples", "channels")),
        *((f"{t}_{name}", ctypes.c_longlong) for t in "xy" for name in ("sample", "channel", "row", "column")),
        *((name, ctypes.c_int) for name in ("channels_last", "log_packets", "log_columns", "log_rows", "images")),
        *((name, Divisor) for name in ("strips", "tiles_x", "tiles_y", "by_channels")),
        *((name, ctypes.c_int) for name in ("pairs", "rows")),
    ]


class Case(NamedTuple):
    kernel: str
    shape: tuple[int, int, int, int]  # of the images: samples, channels, height, width
    size: tuple[int, int]  # of the results: height, width
    taps: tuple[int, ...]
    factors: tuple[int, int]  # up, down
    before: int
    blocks: int
    threads: tuple[int, int, int, int] = (0, 0, 0, 1)  # log_packets, log_columns, log_rows, images
    blocks_along: tuple[int, int, int] = (1, 1, 1)  # strips, tiles_x, tiles_y
    pairs: bool = False
    rows: int = 0
    shared: int = 0  # numbers


CASES = [
    Case("up2_f32", (1, 3, 12, 8), (24, 16), (4, 4), (2, 1), 2, 4, (0, 3, 1, 2), (1, 1, 2), True),
    Case("up2_bf16", (1, 2, 3, 5), (7, 11), (4,), (2, 1), 1, 1, (0, 3, 0, 2)),
    Case("down2_f16", (1, 2, 9, 13), (4, 6), (4, 4), (1, 2), 1, 1, (0, 3, 0, 2)),
    Case("filter_f64", (2, 1, 20, 20), (20, 20), (4, 4), (1, 1), 2, 8, (0, 3, 1, 1), (1, 2, 2), True),
    Case("last_up2_f16", (1, 4, 10, 4), (20, 8), (4, 4), (2, 1), 2, 1, (0, 2, 2, 1)),
    Case("last_down2_f64", (1, 2, 5, 6), (2, 3), (4, 4), (1, 2), 1, 1, (0, 2, 0, 1)),
    Case("last_filter_f32", (2, 12, 12, 9), (12, 9), (4, 4), (1, 1), 2, 24, (1, 1, 1, 1), (2, 3, 2)),
    Case("rows_f32", (1, 1, 6, 30), (12, 60), (12,), (2, 1), 6, 4, rows=8, shared=12 + 11 * 32),
    Case("any_bf16", (1, 2, 4, 5), (3, 4), (3, 3), (2, 3), 1, 1),
]


def bits(x: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values in a storage type; bfloat16 by truncation of float32."""
    if dtype == "bf16":
        return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(STORAGE[dtype])


def launch(variant: str, case: Case) -> np.ndarray:
    dtype = case.kernel.rsplit("_", 1)[1]
    wide = np.float64 if dtype == "f64" else np.float32
    samples, channels, height, width = case.shape
    random = np.random.default_rng(0)
    a = Arguments(matrix=len(case.taps) == 2, gain=2.0, samples=samples, channels=channels)
    a.horizontal = Axis(*case.factors, case.taps[-1], width, case.size[1], case.before)
    a.vertical = Axis(*case.factors, case.taps[0], height, case.size[0], case.before)
    a.log_packets, a.log_columns, a.log_rows, a.images = case.threads
    a.strips, a.tiles_x, a.tiles_y = map(Divisor.of, case.blocks_along)
    a.by_channels = Divisor.of(channels)
    a.pairs, a.rows, a.channels_last = case.pairs, case.rows, "last" in case.kernel
    for t, (h, w) in (("x", (height, width)), ("y", case.size)):
        strides = (h * w * channels, 1, w * channels, channels) if a.channels_last else (channels * h * w, h * w, w, 1)
        for name, stride in zip(("sample", "channel", "row", "column"), strides, strict=True):
            setattr(a, f"{t}_{name}", stride)
    a.x = simt.pointer(simt.Buffer(bits(random.standard_normal(case.shape).ravel(), dtype)))
    a.f = simt.pointer(simt.Buffer(random.standard_normal(case.taps).astype(wide)))
    y = simt.Buffer.poisoned((samples * channels * case.size[0] * case.size[1],), STORAGE[dtype])
    a.y = simt.pointer(y)
    names = emulated.kernel_names(emulated.CSRC / "upfirdn2d" / "upfirdn2d.cu")
    program = simt.build("csrc/upfirdn2d/upfirdn2d.cu", names, variant)
    program.launch(
        f"upfirdn2d_{case.kernel}",
        grid=case.blocks,
        block=THREADS,
        arguments=a,
        shared_bytes=case.shared * np.dtype(wide).itemsize,
    )
    return y.array


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.kernel)
@pytest.mark.parametrize("variant", ["memory", "threads"])
def test_kernel_under_sanitizer(variant: str, case: Case) -> None:
    plain, checked = launch("plain", case), launch(variant, case)
    # all ones would be memory that nobody wrote
    assert not (plain.view(np.uint8).reshape(-1, plain.itemsize) == 0xFF).all(1).any()
    np.testing.assert_array_equal(checked, plain)
