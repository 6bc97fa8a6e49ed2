"""The emulator catches what it exists to catch: each planted fault fails, and the clean kernel passes every variant."""

import ctypes
from typing import Any

import numpy as np
import pytest

from simt import runner as simt

pytestmark = pytest.mark.skipif(simt.unavailable() is not None, reason=str(simt.unavailable()))

KERNELS = [
    *("sum_clean", "sum_no_barrier", "sum_read_past_end", "sum_shared_race", "sum_unwritten", "sum_past_shared"),
    *("sum_unwritten_shared", "neighbour_clean", "neighbour_no_syncwarp", "early_return", "divergent_barrier"),
    *("endless", "absent_lane", "misaligned", "vocabulary"),
]


class SumArguments(ctypes.Structure):
    _fields_ = [
        ("x", simt.Pointer),
        ("partial", simt.Pointer),
        ("ticket", simt.Pointer),
        ("out", simt.Pointer),
        ("n", ctypes.c_longlong),
    ]


class TwoPointers(ctypes.Structure):
    _fields_ = [("x", simt.Pointer), ("out", simt.Pointer)]


class TwoPointersAndCount(ctypes.Structure):
    _fields_ = [*TwoPointers._fields_, ("n", ctypes.c_int)]


class OnePointer(ctypes.Structure):
    _fields_ = [("out", simt.Pointer)]


class CheckArguments(ctypes.Structure):
    _fields_ = [(f"out_{t}", simt.Pointer) for t in ("int", "unsigned", "float", "double", "long")]


@pytest.fixture(scope="module", params=list(simt.VARIANTS))
def program(request: pytest.FixtureRequest) -> simt.Program:
    return simt.build("tests/simt/planted.cu", KERNELS, request.param)


def variant(name: str) -> simt.Program:
    return simt.build("tests/simt/planted.cu", KERNELS, name)


def run_sum(program: simt.Program, kernel: str, n: int = 1003, grid: int = 3, order: str = "forward") -> np.ndarray:
    x = np.random.default_rng(0).standard_normal(n).astype(np.float32)
    out = simt.Buffer.poisoned((1,), np.float32)
    arguments = SumArguments(
        simt.pointer(simt.Buffer(x)),
        simt.pointer(simt.Buffer.poisoned((grid,), np.float32)),
        simt.pointer(simt.Buffer(np.zeros(1, np.uint32))),
        simt.pointer(out),
        n,
    )
    program.launch(kernel, grid=grid, block=256, arguments=arguments, order=order)
    if np.isfinite(out.array).all():
        np.testing.assert_allclose(out.array[0], x.sum(dtype=np.float64), atol=1e-4)
    return out.array


def run_two(
    program: simt.Program, kernel: str, threads: int, *more: int, size: int | None = None, shift: int = 0
) -> np.ndarray:
    x = np.arange(size or threads, dtype=np.float32)
    out = simt.Buffer.poisoned((threads,), np.float32)
    kind: Any = TwoPointersAndCount if more else TwoPointers
    arguments = kind(simt.pointer(simt.Buffer(x, shift)), simt.pointer(out), *more)
    program.launch(kernel, grid=1, block=threads, arguments=arguments)
    return out.array


def test_clean_kernels_pass_every_variant(program: simt.Program) -> None:
    results = [run_sum(program, "sum_clean", order=order) for order in simt.ORDERS]
    assert np.isfinite(results).all() and len({r.tobytes() for r in results}) == 1
    np.testing.assert_array_equal(run_two(program, "neighbour_clean", 32), np.roll(np.arange(32), -1))
    np.testing.assert_array_equal(run_two(program, "early_return", 256, 77)[:77], np.arange(77)[::-1])


@pytest.mark.parametrize("kernel", ["sum_no_barrier", "sum_shared_race"])
def test_race_on_shared_memory_is_reported(kernel: str) -> None:
    with pytest.raises(simt.DataRace, match="data race"):
        run_sum(variant("threads"), kernel)


def test_a_shuffle_does_not_hide_a_missing_syncwarp() -> None:
    with pytest.raises(simt.DataRace, match="data race"):
        run_two(variant("threads"), "neighbour_no_syncwarp", 32)


def test_out_of_bounds_read_is_reported() -> None:
    with pytest.raises(simt.MemoryFault, match="heap-buffer-overflow"):
        run_sum(variant("memory"), "sum_read_past_end")
    with pytest.raises(simt.MemoryFault, match=r"out of bounds|global-buffer-overflow"):
        run_sum(variant("memory"), "sum_past_shared")


def test_misaligned_vector_load_is_reported() -> None:
    aligned = run_two(variant("memory"), "misaligned", 32, size=128)
    np.testing.assert_array_equal(aligned, np.arange(128).reshape(32, 4).sum(1))
    with pytest.raises(simt.MemoryFault, match="misaligned"):
        run_two(variant("memory"), "misaligned", 32, size=128, shift=4)


def test_unwritten_output_and_shared_memory_are_nan() -> None:
    assert np.isnan(run_sum(variant("plain"), "sum_unwritten")).all()
    assert np.isnan(run_sum(variant("plain"), "sum_unwritten_shared")).all()
    absent = simt.Buffer.poisoned((16,), np.float32)
    variant("plain").launch("absent_lane", grid=1, block=32, arguments=OnePointer(simt.pointer(absent)))
    np.testing.assert_array_equal(np.isnan(absent.array), np.arange(16) >= 8)


def test_a_barrier_not_every_thread_reaches_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    out = simt.pointer(simt.Buffer.poisoned((64,), np.float32))
    with pytest.raises(simt.Deadlock, match=r"32 at __syncthreads; 32 at a shuffle"):
        variant("plain").launch("divergent_barrier", grid=1, block=64, arguments=OnePointer(out))
    monkeypatch.setenv("SIMT_TIMEOUT", "1")
    flag = simt.pointer(simt.Buffer(np.zeros(1, np.int32)))
    with pytest.raises(simt.Deadlock, match="endless loop"):
        variant("plain").launch("endless", grid=1, block=1, arguments=OnePointer(flag))


def test_a_launch_no_card_accepts_is_refused() -> None:
    with pytest.raises(simt.Misuse, match="no card accepts"):
        run_two(variant("plain"), "neighbour_clean", 1056)
    with pytest.raises(simt.Misuse, match="parameters take"):
        run_two(variant("plain"), "neighbour_clean", 32, 1)


def test_vocabulary(program: simt.Program) -> None:
    ints = np.full(16 * 64 + 3, -1, np.int32)
    ints[-3:] = 0
    buffers = {
        "out_int": simt.Buffer(ints),
        "out_unsigned": simt.Buffer(np.zeros(5, np.uint32)),
        "out_float": simt.Buffer(np.zeros(1, np.float32)),
        "out_double": simt.Buffer(np.zeros(1, np.float64)),
        "out_long": simt.Buffer(np.zeros(1, np.uint64)),
    }
    arguments = CheckArguments(*map(simt.pointer, buffers.values()))
    program.launch("vocabulary", grid=1, block=(4, 8, 2), arguments=arguments, shared_bytes=4 * 64)
    table = buffers["out_int"].array[: 16 * 64].reshape(64, 16)
    t = np.arange(64)
    lane = t % 32
    expected = [
        t - lane + 3,
        t - lane % 8 + 1,
        np.where(lane >= 2, t - 2, t),
        np.where(lane % 16 + 5 < 16, t + 5, t),
        t ^ 9,
        t ^ 1,
        lane ^ 2,
        np.full(64, sum(1 << i for i in range(0, 32, 3))),
        np.full(64, 1 + 0 + 4),
        np.where(lane < 8, t ^ 4, t ^ 1),
        np.full(64, 32),
        np.full(64, 1),
        np.where(t < 32, t[:32].sum(), t[32:].sum()),
        (t + 1) % 64,
        np.zeros(64),
        [min(max(i, 3), 9) + i.bit_count() + 32 - i.bit_length() + ((i & -i).bit_length()) for i in range(64)],
    ]
    for column, want in enumerate(expected):
        np.testing.assert_array_equal(table[:, column], want, err_msg=f"o[{column}]")
    np.testing.assert_array_equal(buffers["out_int"].array[-3:], [64, -63, 63])
    np.testing.assert_array_equal(buffers["out_unsigned"].array, [64 % 5, (-64) % 5, 0xFFFFFFFF, 7, 9])
    assert (buffers["out_float"].array[0], buffers["out_double"].array[0]) == (32.0, 16.0)
    assert buffers["out_long"].array[0] == 64 << 33
