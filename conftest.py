"""Tests and benchmarks run against the installed gan_fast where there is one, and against this folder otherwise.

`python -m pytest` puts this folder first on the path, where its gan_fast/ would hide the installed one. It goes last
instead: an installed or editable gan_fast wins, and `tests` and `benchmarks` stay importable. Python processes that
tests start do not add their folder either (from Python 3.11 on; for 3.10 a test says `cwd=`). The header of every run
says which gan_fast it is.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).parent)

sys.path[:] = [entry for entry in sys.path if str(Path(entry).resolve()) != ROOT] + [ROOT]
os.environ["PYTHONSAFEPATH"] = "1"


def pytest_report_header() -> str:
    spec = importlib.util.find_spec("gan_fast")
    return f"gan_fast: {spec.origin if spec else 'not found'}"
