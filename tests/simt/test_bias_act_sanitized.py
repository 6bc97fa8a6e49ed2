"""bias_act's kernels under ASan + UBSan and under TSan: results equal the plain run's, and no report."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import pytest

from gan_fast.reference.bias_act import ACTIVATIONS
from simt import emulated
from simt import runner as simt

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(simt.unavailable() is not None, reason=str(simt.unavailable()))]

THREADS, WARPS = 256, 8
STORAGE = {"f64": np.float64, "f32": np.float32, "bf16": np.uint16, "f16": np.float16}


class Numbers(ctypes.Structure):
    _fields_ = [("act", ctypes.c_int), *((name, ctypes.c_double) for name in ("alpha", "gain", "clamp"))]


class Arguments(ctypes.Structure):
    _fields_ = [
        ("numbers", Numbers),
        ("stored_bound", ctypes.c_double),
        *((name, ctypes.c_longlong) for name in ("samples", "channels", "pixels")),
        *((name, ctypes.c_int) for name in ("vector", "tile", "group", "lanes")),
        *((name, ctypes.c_longlong) for name in ("tiles", "groups", "strips")),
        *((name, simt.Pointer) for name in ("v", "x", "y", "t", "out", "out2")),
        *((name, simt.Pointer) for name in ("scale", "bias", "noise", "tscale", "tbias", "tnoise")),
        *((f"{name}_stride", ctypes.c_longlong) for name in ("scale", "noise", "tscale", "tnoise")),
        *((name, simt.Pointer) for name in ("sums", "scale_sums", "noise_sums")),
    ]


class Case(NamedTuple):
    kernel: str
    act: str
    size: tuple[int, int, int]  # samples, channels, pixels
    vector: bool
    tile: int
    group: int
    lanes: int


CASES = [
    Case("forward_planar_bf16", "lrelu", (2, 3, 264), True, 256, 1, 32),
    Case("backward_planar_f32", "lrelu", (1, 5, 131), False, 32, 3, 32),
    Case("backward_interleaved_f16", "swish", (2, 24, 9), True, 4, 1, 4),
    Case("double_backward_planar_f32", "swish", (2, 2, 130), False, 32, 2, 32),
    Case("double_backward_interleaved_f64", "relu", (2, 5, 7), False, 4, 1, 8),
]


def parts(whole: int, part: int) -> int:
    return -(-whole // part)


def bits(x: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values in a storage type; bfloat16 by truncation of float32."""
    if dtype == "bf16":
        return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(STORAGE[dtype])


def launch(variant: str, case: Case) -> dict[str, np.ndarray]:
    name, dtype = case.kernel.rsplit("_", 1)
    order, planar = name.count("backward") + name.count("double"), name.endswith("planar")
    n, c, pixels = case.size
    random = np.random.default_rng(0)
    wide = np.float64 if dtype == "f64" else np.float32
    storage = np.dtype(STORAGE[dtype])
    shift = 0 if case.vector else storage.itemsize

    def big() -> simt.Pointer:
        return simt.pointer(simt.Buffer(bits(random.standard_normal(n * c * pixels), dtype), shift))

    def small(*shape: int) -> simt.Pointer:
        return simt.pointer(simt.Buffer(random.standard_normal(shape).astype(wide)))

    packet = 16 // storage.itemsize if case.vector else 1
    a = Arguments(samples=n, channels=c, pixels=pixels, vector=case.vector, tile=case.tile, group=case.group)
    a.numbers = Numbers(ACTIVATIONS[case.act].code, 0.2, 1.5, -1.0)
    a.stored_bound, a.lanes = float("nan"), case.lanes
    a.tiles, a.groups, a.strips = parts(pixels, case.tile), parts(c, case.group), parts(c, case.lanes * packet)
    a.v, a.scale, a.bias, a.noise = big(), small(n, c), small(c), small(n, pixels)
    a.scale_stride, a.noise_stride = c, pixels
    out = {"out": simt.Buffer.poisoned((n * c * pixels,), storage, shift)}
    if order:
        a.x, a.y = big(), big()
        out["sums"], out["scale_sums"] = (simt.Buffer.poisoned((n * a.tiles * c,), wide) for _ in range(2))
        out["noise_sums"] = simt.Buffer.poisoned((n * (a.groups if planar else a.strips) * pixels,), wide)
    if order == 2:
        a.t, a.tscale, a.tbias, a.tnoise = big(), small(n, c), small(c), small(pixels)
        a.tscale_stride = c
        out["out2"] = simt.Buffer.poisoned((n * c * pixels,), storage, shift)
    for key, buffer in out.items():
        setattr(a, key, simt.pointer(buffer))
    names = emulated.kernel_names(emulated.CSRC / "bias_act" / "bias_act.cu")
    program = simt.build("csrc/bias_act/bias_act.cu", names, variant)
    units = n * a.tiles * (a.groups if planar else a.strips)
    program.launch(f"bias_act_{case.kernel}", grid=parts(units, WARPS), block=THREADS, arguments=a)
    return {key: buffer.array for key, buffer in out.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.kernel)
@pytest.mark.parametrize("variant", ["memory", "threads"])
def test_kernel_under_sanitizer(variant: str, case: Case) -> None:
    plain, checked = launch("plain", case), launch(variant, case)
    for name, expected in plain.items():
        # all ones would be memory that nobody wrote
        assert not (expected.view(np.uint8).reshape(-1, expected.itemsize) == 0xFF).all(1).any(), name
        np.testing.assert_array_equal(checked[name], expected, err_msg=name)
