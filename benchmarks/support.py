"""What the bench files share."""

from __future__ import annotations

from typing import Any

import pytest

from gan_fast.bench import Case

COPY = "copy of as many bytes"


def parameters(cases: list[Case]) -> list[Any]:
    """Every contender of every case, and the copy it is compared with."""
    return [
        pytest.param(case, name, id=f"{case.name}-{name}")
        for case in cases
        for name in (*case.contenders, *([COPY] if case.traffic else []))
    ]
