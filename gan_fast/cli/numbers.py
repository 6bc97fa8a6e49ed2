"""Lists of whole numbers on the command line: 0-3,7 is 0, 1, 2, 3 and 7."""

from __future__ import annotations

import re

from gan_fast.cli import UsageError


def parse_numbers(text: str) -> list[int]:
    """UsageError for anything else."""
    numbers: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if match is None or (match[2] is not None and int(match[2]) < int(match[1])):
            raise UsageError(f"a list of numbers looks like 0-3,7, got {text!r}")
        numbers += range(int(match[1]), int(match[2] or match[1]) + 1)
    return numbers
