"""Which implementation serves: measured once, remembered in a file, never while a graph is captured."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from gan_fast import triton
from gan_fast.triton import plans, rule, serve

pytest.importorskip("triton", reason="triton is not installed: CPU builds of torch do not bring it")

CARD = "NVIDIA H100 80GB HBM3"
KEY = "forward n8 512->512 32x32"


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path))
    monkeypatch.delenv(rule.VARIABLE, raising=False)
    rule.forget()
    yield
    rule.forget()


class Bench:
    """Two implementations and a stopwatch that says what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, kernel: float, shared: float) -> None:
        self.ran: list[str] = []
        self.measured = 0
        self.times = rule.Times(kernel, shared)
        monkeypatch.setattr(rule, "measure", self.measure)

    def measure(self, kernel: Callable[[], Any], shared: Callable[[], Any]) -> rule.Times:
        self.measured += 1
        return self.times

    def call(self, capturing: bool = False, exact: object = 8, kernel: Callable[[], str] | None = None) -> str:
        return rule.run(CARD, KEY, exact, kernel or (lambda: "triton"), lambda: "shared", capturing)


@pytest.mark.parametrize(("kernel", "shared", "winner"), [(10.0, 20.0, "triton"), (20.0, 10.0, "shared")])
def test_the_faster_serves_and_is_measured_once(
    monkeypatch: pytest.MonkeyPatch, kernel: float, shared: float, winner: str
) -> None:
    bench = Bench(monkeypatch, kernel, shared)
    assert [bench.call() for _ in range(3)] == [winner] * 3 and bench.measured == 1
    rule.forget()  # as another process would find it
    bench.times = rule.Times(shared, kernel)
    assert bench.call() == winner and bench.measured == 1
    assert [(c.card, c.key, c.times.faster) for c in rule.choices()] == [(CARD, KEY, winner)]


def test_what_is_in_the_file_first_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 10.0, 20.0)
    bench.call()
    path = rule.path_of(CARD)
    assert rule.remember(path, CARD, KEY, rule.Times(9.0, 1.0)) == rule.Times(10.0, 20.0)
    rule.remember(path, CARD, "another", rule.Times(1.0, 2.0))
    assert set(rule.read(path)) == {KEY, "another"}
    assert [p.suffix for p in path.parent.iterdir()] == [".json"]


@pytest.mark.parametrize("damage", ["", "{", '{"microseconds": [1]}', '{"microseconds": {"a": ["x", 1]}}', "[]"])
def test_a_damaged_file_is_measured_anew(monkeypatch: pytest.MonkeyPatch, damage: str) -> None:
    path = rule.path_of(CARD)
    path.write_text(damage)
    assert rule.choices() == []
    bench = Bench(monkeypatch, 10.0, 20.0)
    assert bench.call() == "triton" and bench.measured == 1
    assert json.loads(path.read_text())["microseconds"] == {KEY: [10.0, 20.0]}


def test_nothing_is_measured_or_loaded_while_capturing(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 10.0, 20.0)
    assert bench.call(capturing=True) == "shared" and bench.measured == 0
    assert bench.call() == "triton"
    assert bench.call(capturing=True) == "triton"
    assert bench.call(capturing=True, exact=7) == "shared"  # its kernel was never loaded
    rule.forget()
    assert bench.call(capturing=True) == "shared" and bench.measured == 1


def test_a_kernel_that_does_not_compile_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    from triton.runtime.errors import OutOfResources

    bench = Bench(monkeypatch, 10.0, 20.0)

    def fails() -> str:
        raise OutOfResources(300_000, 232_448, "shared memory")

    with pytest.warns(UserWarning, match="does not run here.*shared memory") as warned:
        assert [bench.call(kernel=fails) for _ in range(3)] == ["shared"] * 3
    assert len(warned) == 1 and bench.measured == 0 and rule.choices() == []


def test_other_errors_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 10.0, 20.0)

    def fails() -> str:
        raise RuntimeError("CUDA error: an illegal memory access was encountered")

    with pytest.raises(RuntimeError, match="illegal memory"):
        bench.call(kernel=fails)


@pytest.mark.parametrize("wanted", ["triton", "shared"])
def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch, wanted: str) -> None:
    bench = Bench(monkeypatch, 10.0, 20.0)
    monkeypatch.setenv(rule.VARIABLE, wanted)
    assert bench.call() == wanted and bench.call(capturing=True) == wanted and bench.measured == 0
    monkeypatch.setenv(rule.VARIABLE, "fast")
    with pytest.raises(ValueError, match="auto, triton, shared"):
        bench.call()


def test_a_folder_that_cannot_be_written_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path / "file"))
    rule.forget()
    bench = Bench(monkeypatch, 10.0, 20.0)
    with pytest.warns(UserWarning, match="GAN_FAST_CACHE"):
        assert bench.call() == "triton"
    assert bench.call() == "triton" and bench.measured == 1


def test_batches_share_an_entry_up_to_the_next_power_of_two() -> None:
    assert [rule.key_of("forward", n).split()[1] for n in (1, 2, 3, 4, 5, 16, 17)] == [
        "n1", "n2", "n4", "n4", "n8", "n16", "n32",
    ]  # fmt: skip


def test_a_call_that_the_kernels_cannot_take_is_the_shared_convolution() -> None:
    """CPU tensors stand for a card without Triton; float64 and empty batches do not even ask."""
    x, w = torch.randn(1, 2, 4, 4), torch.randn(3, 2, 3, 3)
    arguments = (None, None, None, None, 1, 0, 0.0, 1.0, -1.0)
    with pytest.warns(UserWarning, match="cannot run: they are for CUDA devices"):
        y = serve.forward(x, w, *arguments)
    torch.testing.assert_close(y, torch.nn.functional.conv2d(x, w, padding=1))
    assert serve.forward(x[:0], w, *arguments).shape == (0, 3, 4, 4)
    dx, ds = serve.input_gradient(y[:0], w, None, None, x[:0], 1)
    assert dx.shape == (0, 2, 4, 4) and ds.shape == (0, 2)
    assert serve.weight_gradient(y[:0], x[:0], None, None, 3, 1).count_nonzero() == 0
    assert serve.forward(x.double(), w.double(), *arguments).dtype == torch.float64
    assert triton.why_not(torch.device("cpu")) is not None


def test_a_settled_kind_is_asked_nothing_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(monkeypatch, 10.0, 20.0)
    assert rule.decision(CARD, KEY, 8) is None
    bench.call()
    assert rule.decision(CARD, KEY, 8) is True
    assert rule.decision(CARD, KEY, 7) is None  # never loaded, so that a capture may still find the shared convolution
    rule.settle("kind", True)
    rule.settle("undecided", None)
    rule.settle(None, True)  # calls that are of no kind
    assert rule.settled("kind") is True and rule.settled("undecided") is None and rule.settled(None) is None
    monkeypatch.setenv(rule.VARIABLE, "shared")
    assert rule.settled("kind") is None and rule.decision(CARD, KEY, 8) is False
    monkeypatch.delenv(rule.VARIABLE)
    assert rule.settled("kind") is True
    rule.forget()
    assert rule.settled("kind") is None


def test_a_settled_call_goes_straight_to_what_serves_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from gan_fast.triton import launch

    x, w = torch.randn(2, 3, 4, 4), torch.randn(5, 3, 3, 3)
    arguments = (x, w, None, None, None, None, 1, 0, 0.0, 1.0, -1.0)
    ran: list[str] = []
    monkeypatch.setattr(launch, "forward", lambda *a: ran.append("triton"))
    monkeypatch.setattr(serve.shared, "forward", lambda *a: ran.append("shared"))
    monkeypatch.setattr(serve, "reason_said_once", lambda device: None)
    monkeypatch.setattr(serve, "_choose", lambda *a: ran.append("chosen"))
    kind = plans.kind_of("forward", arguments[:6], arguments[6:])
    for fused, wanted in ((None, "chosen"), (True, "triton"), (False, "shared")):
        rule.settle(kind, fused)
        serve.forward(*arguments)
        assert ran.pop() == wanted
    serve.forward(x[1:], *arguments[1:])
    assert ran.pop() == "chosen"


def test_served_calls_name_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def run(card: str, key: str, exact: object, kernel: Any, shared: Any, capturing: bool) -> Any:
        seen.append(key)
        return shared()

    monkeypatch.setattr(rule, "run", run)
    monkeypatch.setattr(serve, "reason_said_once", lambda device: None)
    monkeypatch.setattr(
        serve, "_choose", lambda x, kind, key, exact, kernel, other: run(CARD, key, exact, kernel, other, False)
    )
    x, w, s, d = torch.randn(3, 2, 4, 5), torch.randn(6, 2, 3, 3), torch.ones(3, 2), torch.ones(3, 6)
    y = serve.forward(x, w, s, d, None, None, 1, 2, 0.2, 1.0, -1.0)
    serve.input_gradient(y, w, s, d, x, 1)
    serve.weight_gradient(y, x.to(memory_format=torch.channels_last), None, d, 3, 1)
    serve.epilogue_gradient(y, y, None, 2, 0.2, 1.0, -1.0)
    kind = f"fp32-{plans.precision(torch.float32)}"
    assert seen == [
        f"forward n4 2->6 3x3p1 4x5 {kind} nchw s+d",
        f"input-gradient n4 6->2 3x3p1 4x5 {kind} nchw s+d+ds",
        f"weight-gradient n4 2->6 3x3p1 4x5 {kind} nhwc d",
        "epilogue-gradient n4 6 4x5 fp32 nchw",
    ]
