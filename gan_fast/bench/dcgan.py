"""One whole DCGAN step."""

from __future__ import annotations

from gan_fast.bench.cases import Case


def cases() -> list[Case]:
    """One step."""
    return []
