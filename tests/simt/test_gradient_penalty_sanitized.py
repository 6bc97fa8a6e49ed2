"""The gradient penalty's kernels under ASan + UBSan and under TSan: results equal the plain run's, and no report."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import numpy as np
import pytest

from simt import emulated
from simt import runner as simt

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(simt.unavailable() is not None, reason=str(simt.unavailable()))]

THREADS, WARPS = 256, 8
STORAGE = {"f64": np.float64, "f32": np.float32, "bf16": np.uint16, "f16": np.float16}


class Arguments(ctypes.Structure):
    _fields_ = [
        *((name, simt.Pointer) for name in ("x", "out", "grad_output", "norms", "penalty", "partials", "ticket")),
        *((name, ctypes.c_longlong) for name in ("rows", "inner", "x_stride")),
        *((name, ctypes.c_int) for name in ("parts", "warp_units", "vector", "kind")),
        *((name, ctypes.c_double) for name in ("center", "factor")),
    ]


class Case(NamedTuple):
    what: str
    dtype: str
    rows: int
    inner: int
    gap: int  # elements between rows
    parts: int  # blocks a row; 0: a warp a row
    vector: bool


CASES = [
    Case("norms", "f32", 2, 2052, 4, 2, True),
    Case("norms", "bf16", 11, 35, 0, 0, False),
    Case("norms", "f64", 3, 514, 0, 1, True),
    Case("norms", "f16", 1, 4099, 0, 3, False),
    Case("scale", "f16", 2, 2051, 1, 2, False),
    Case("scale", "f32", 9, 36, 0, 0, True),
    Case("scale", "f64", 2, 515, 1, 1, False),
]


def bits(x: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values in a storage type; bfloat16 by truncation of float32."""
    if dtype == "bf16":
        return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return x.astype(STORAGE[dtype])


def launch(variant: str, case: Case) -> dict[str, np.ndarray]:
    wide = np.float64 if case.dtype == "f64" else np.float32
    stride = case.inner + case.gap
    random = np.random.default_rng(0)
    # memory ends with the last row: a read into the gap behind it is out of bounds
    values = random.standard_normal((case.rows - 1) * stride + case.inner)
    a = Arguments(rows=case.rows, inner=case.inner, x_stride=stride, parts=case.parts or 1, warp_units=case.parts == 0)
    a.vector, a.kind, a.center, a.factor = case.vector, 1, 1.0, 10 / case.rows
    a.x = simt.pointer(
        simt.Buffer(bits(values, case.dtype), 0 if case.vector else np.dtype(STORAGE[case.dtype]).itemsize)
    )
    out: dict[str, simt.Buffer] = {}
    if case.what == "norms":
        out["norms"] = simt.Buffer.poisoned((case.rows,), wide)
        out["penalty"] = simt.Buffer.poisoned((1,), wide)
        out["ticket"] = simt.Buffer(np.zeros(1, np.uint32))
        a.partials = simt.pointer(simt.Buffer.poisoned((case.rows * a.parts,), np.float64))
        for name in ("norms", "penalty", "ticket"):
            setattr(a, name, simt.pointer(out[name]))
    else:
        out["out"] = simt.Buffer.poisoned((case.rows * case.inner,), STORAGE[case.dtype])
        a.out = simt.pointer(out["out"])
        a.norms = simt.pointer(simt.Buffer(random.random(case.rows).astype(wide)))
        a.grad_output = simt.pointer(simt.Buffer(np.array([0.7], wide)))
    names = emulated.kernel_names(emulated.CSRC / "gradient_penalty" / "gradient_penalty.cu")
    program = simt.build("csrc/gradient_penalty/gradient_penalty.cu", names, variant)
    grid = case.rows * case.parts if case.parts else -(-case.rows // WARPS)
    program.launch(f"gradient_penalty_{case.what}_{case.dtype}", grid=grid, block=THREADS, arguments=a)
    return {name: buffer.array for name, buffer in out.items()}


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.what}_{c.dtype}")
@pytest.mark.parametrize("variant", ["memory", "threads"])
def test_kernel_under_sanitizer(variant: str, case: Case) -> None:
    plain, checked = launch("plain", case), launch(variant, case)
    for name, expected in plain.items():
        # all ones would be memory that nobody wrote
        assert not (expected.view(np.uint8).reshape(-1, expected.itemsize) == 0xFF).all(1).any(), name
        np.testing.assert_array_equal(checked[name], expected, err_msg=name)
    if "ticket" in plain:
        assert not plain["ticket"].any()
