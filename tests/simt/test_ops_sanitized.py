"""Kernels of every op under ASan + UBSan and under TSan: results equal those of the plain run, and no report."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest

from simt import emulated
from simt import runner as simt

# Compiling the kernels for the emulator takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.skipif(simt.unavailable() is not None, reason=str(simt.unavailable()))]

MAX_SEGMENTS, SUMS, FOLDED, THREADS = 20, 6, 5, 256


def fields(**types: type) -> list[tuple[str, type]]:
    return list(types.items())


class Segment(ctypes.Structure):
    _fields_ = [
        *((name, simt.Pointer) for name in ("x", "y", "w", "p", "c")),
        *fields(inner=ctypes.c_longlong, n=ctypes.c_longlong),
        *((name, simt.Pointer) for name in ("value", "grad", "grad2")),
        *fields(factor=ctypes.c_double, offset=ctypes.c_double),
    ]


class SegmentWork(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_double) for name in ("scale", "inverse_n", "other_factor", "inverse_inner")),
        ("unit_end", ctypes.c_int),
        *fields(side=ctypes.c_short, vector=ctypes.c_short, index=ctypes.c_int, other=ctypes.c_int),
    ]


class Target(ctypes.Structure):
    _fields_ = [
        *((name, simt.Pointer) for name in ("partials", "ticket", "carry_in", "carry_out", "loss", "stats")),
        *fields(inverse_real_count=ctypes.c_double, inverse_fake_count=ctypes.c_double),
        *((name, simt.Pointer) for name in ("means", "derivatives")),
    ]


class TermNumbers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("p", "scale", "slope", "shift")]


class NoNumbers(ctypes.Structure):
    _fields_ = [("nothing", ctypes.c_char)]


class SoftplusNumbers(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("beta", "threshold")]


def arguments(numbers: type[ctypes.Structure]) -> type[ctypes.Structure]:
    class Arguments(ctypes.Structure):
        _fields_ = [
            ("segment", Segment * MAX_SEGMENTS),
            ("numbers", numbers * MAX_SEGMENTS),
            ("work", SegmentWork * MAX_SEGMENTS),
            *fields(count=ctypes.c_int, warp_units=ctypes.c_int),
            *((name, simt.Pointer) for name in ("grad_output", "shifts", "offsets")),
            ("target", Target),
        ]

    return Arguments


KERNELS = {
    "adversarial_loss": (TermNumbers, (-1.0, 1.0, 0.1, 0.0)),
    "binary_cross_entropy": (NoNumbers, ()),
    "l1_distance": (NoNumbers, ()),
    "softplus": (SoftplusNumbers, (1.0, 20.0)),
}
# (op, kernel, elements of each segment, blocks of each (0: one block, by warps), elements past alignment)
CASES = [
    ("adversarial_loss", "adversarial_pair_reduce_grad_f32", (37, 5), 0, 0),
    ("adversarial_loss", "adversarial_softplus_reduce_f32", (2051, 9), 2, 0),
    ("adversarial_loss", "adversarial_linear_reduce_f64", (515,), 2, 1),
    ("adversarial_loss", "adversarial_hinge_map_f16", (2059, 3), 1, 0),
    ("binary_cross_entropy", "bce_logits_reduce_grad_bf16", (4100,), 2, 0),
    ("l1_distance", "l1_reduce_grad_f16", (2050, 700), 1, 1),
    ("softplus", "softplus_map_bf16", (1111,), 1, 3),
]
STORAGE = {"f64": np.float64, "f32": np.float32, "bf16": np.uint16, "f16": np.float16}


def bits(x: np.ndarray, dtype: str) -> np.ndarray:
    """float64 values in a storage type; bfloat16 by truncation of float32."""
    return (
        (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16) if dtype == "bf16" else x.astype(STORAGE[dtype])
    )


def written(kernel: str) -> tuple[str, ...]:
    """The outputs of each segment that a case asks its kernel for."""
    if "reduce_grad" in kernel:
        return ("grad",) if "bce" in kernel else ("grad", "grad2")
    if "hinge_map" in kernel:
        return ("grad",)
    return ("value",) if "_map_" in kernel else ()


def launch(
    variant: str, op: str, kernel: str, sizes: tuple[int, ...], blocks: int, shift: int
) -> dict[str, np.ndarray]:
    numbers, values = KERNELS[op]
    a = arguments(numbers)()
    dtype = kernel.rsplit("_", 1)[1]
    storage = np.dtype(STORAGE[dtype])
    wide = np.float64 if dtype == "f64" else np.float32
    by_map = "_map_" in kernel
    out: dict[str, simt.Buffer] = {}
    random = np.random.default_rng(0)
    a.count, a.warp_units = len(sizes), int(blocks == 0)
    warps = [5, 3] if blocks == 0 else []
    end = 0
    for k, n in enumerate(sizes):
        segment, work = a.segment[k], a.work[k]
        for name in ("x", "y"):
            data = simt.Buffer(bits(random.standard_normal(n), dtype), shift * storage.itemsize)
            setattr(segment, name, simt.pointer(data))
        segment.w = simt.pointer(simt.Buffer(random.random(n).astype(wide)))
        segment.inner, segment.n, segment.factor = 1, n, 1 / n
        for name in written(kernel):
            out[f"{name}{k}"] = simt.Buffer.poisoned((n,), storage, shift * storage.itemsize)
            setattr(segment, name, simt.pointer(out[f"{name}{k}"]))
        a.numbers[k] = numbers(*values)
        end += warps[k] if blocks == 0 else blocks
        work.scale, work.inverse_n, work.unit_end, work.side, work.vector, work.index = (
            1 / n,
            1 / n,
            end,
            k % 2,
            not shift,
            k,
        )
    if not by_map:
        target = a.target
        if blocks:
            target.partials = simt.pointer(simt.Buffer.poisoned((end, SUMS), np.float64))
            out["ticket"] = simt.Buffer(np.zeros(1, np.uint32))
            target.ticket = simt.pointer(out["ticket"])
        out["loss"] = simt.Buffer.poisoned((1,), storage if op == "binary_cross_entropy" else wide)
        out["stats"] = simt.Buffer.poisoned((5,), wide)
        target.loss, target.stats = simt.pointer(out["loss"]), simt.pointer(out["stats"])
        target.inverse_real_count = target.inverse_fake_count = 1 / sizes[0]
        if "linear" in kernel:
            out["means"] = simt.Buffer.poisoned((len(sizes),), np.float64)
            target.means = simt.pointer(out["means"])
    names = emulated.kernel_names(emulated.CSRC / op / f"{op}.cu")
    program = simt.build(f"csrc/{op}/{op}.cu", names, variant)
    program.launch(kernel, grid=1 if blocks == 0 else end, block=THREADS, arguments=a)
    return {name: buffer.array for name, buffer in out.items()}


@pytest.mark.parametrize("case", CASES, ids=[c[1] for c in CASES])
@pytest.mark.parametrize("variant", ["memory", "threads"])
def test_kernel_under_sanitizer(variant: str, case: tuple[str, str, tuple[int, ...], int, int]) -> None:
    plain, checked = launch("plain", *case), launch(variant, *case)
    for name, expected in plain.items():
        # all ones would be memory that nobody wrote
        assert not (expected.view(np.uint8).reshape(-1, expected.itemsize) == 0xFF).all(1).any(), name
        np.testing.assert_array_equal(checked[name], expected, err_msg=name)
