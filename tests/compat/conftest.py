"""Stand-in checkouts on the path, and none of their modules left behind."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import pytest

CHECKOUTS = Path(__file__).parent / "checkouts"
THEIRS = ("torch_utils", "training", "op", "model", "R3GAN")


def forget():
    for name in [name for name in sys.modules if name.partition(".")[0] in THEIRS]:
        del sys.modules[name]


@pytest.fixture
def checkout(monkeypatch):
    """`checkout("stylegan")` puts that folder first on the path and returns `importlib.import_module`."""
    from gan_fast.compat import nvlabs, rosinality

    forget()

    def on_path(name):
        monkeypatch.syspath_prepend(CHECKOUTS / name)
        return importlib.import_module

    yield on_path
    nvlabs.uninstall()
    rosinality.uninstall()
    forget()
