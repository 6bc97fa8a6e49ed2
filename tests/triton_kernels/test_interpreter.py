"""The Triton kernels run, without a card, by Triton's interpreter, against the float64 reference."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from triton_kernels.cases import CASES

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed: CPU builds of torch do not bring it"
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str | None]:
    tests = Path(__file__).resolve().parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tests), *sys.path])}
    program = [sys.executable, str(tests / "triton_kernels" / "interpreted.py")]
    done = subprocess.run(program, check=False, capture_output=True, text=True, env=environment, timeout=600)
    assert done.returncode == 0, done.stderr
    found: dict[str, str | None] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_kernels_agree_with_the_reference(case: object, outcome: dict[str, str | None]) -> None:
    assert outcome[case.name] is None, outcome[case.name]  # type: ignore[attr-defined]
