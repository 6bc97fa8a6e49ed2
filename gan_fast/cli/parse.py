"""Arguments into a dataclass: every field a flag, its docstring the help."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import tyro

from gan_fast.cli import UsageError

T = TypeVar("T")


def parse(kind: type[T], arguments: Sequence[str], command: str) -> T:
    """An instance of the dataclass `kind`. Unknown flags and unreadable values exit with code 2, as do refused ones."""
    try:
        return tyro.cli(kind, args=list(arguments), prog=f"gan-fast {command}")
    except ValueError as error:
        raise UsageError(str(error)) from error
