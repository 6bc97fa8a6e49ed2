"""`pytest benchmarks/ --benchmark-json=run.json`: one benchmark a contender, timed only after its case agreed.

pytest-benchmark times contenders one after the other; `gan-fast bench`, which shuffles them in every round, gives the
better ratio. A bench file is a list `CASES` and a test that takes `timed`, `case` and `contender`; with
`--benchmark-disable`, which only shows that everything runs, `SMALL_CASES` take their place where there are any.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from gan_fast.bench import Case
from gan_fast.bench.cases import COPY, Contender, prepare
from gan_fast.bench.record import environment

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
_prepared: tuple[str, dict[str, Contender]] = ("", {})


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every contender of every case of the module, and the copy they are compared with."""
    if "contender" not in metafunc.fixturenames:
        return
    cases = metafunc.module.CASES
    if metafunc.config.getoption("benchmark_disable"):
        cases = getattr(metafunc.module, "SMALL_CASES", cases)
    pairs = [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for case in cases
        for name in (*case.contenders, *([COPY] if case.traffic else []))
    ]
    metafunc.parametrize(("case", "contender"), pairs)


def _contenders(case: Case) -> dict[str, Contender]:
    """The case made ready: the last one is kept, since its contenders follow one another."""
    global _prepared
    if _prepared[0] != case.name:
        torch.compiler.reset()
        _prepared = (case.name, {contender.name: contender for contender in prepare(case, DEVICE)})
    return _prepared[1]


@pytest.fixture
def timed(benchmark: Any) -> Callable[[Case, str], None]:
    """Checks the case once, then times one contender and records what the report needs."""

    def run(case: Case, name: str) -> None:
        contender = _contenders(case)[name]
        benchmark.group = case.name
        benchmark.extra_info.update(
            case=case.name, group=case.group, size=case.size, contender=name, role=contender.role, bytes=case.traffic
        )
        benchmark.extra_info.update((k, v) for k, v in asdict(contender.figures).items() if v is not None)

        def job() -> None:
            contender.run()
            if DEVICE.type != "cpu":
                torch.accelerator.synchronize(DEVICE)

        job()
        benchmark(job)

    return run


def pytest_benchmark_update_machine_info(config: Any, machine_info: dict[str, Any]) -> None:
    """The conditions, beside pytest-benchmark's own."""
    machine_info["gan_fast_environment"] = environment(DEVICE)
