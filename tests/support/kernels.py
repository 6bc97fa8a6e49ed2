"""What this build brought: the compiled kernels, and the instruction sets they can be run with."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

HAS_KERNELS = importlib.util.find_spec("gan_fast._C") is not None
CAPABILITIES = ("default", "avx2", "avx512")

needs_kernels = pytest.mark.skipif(
    not HAS_KERNELS, reason="gan_fast._C is not built here (plain references only): pip install -e . builds it"
)


@contextmanager
def cpu_capability(name: str) -> Iterator[None]:
    """Runs the CPU kernels of the block on one instruction set; skips the test where the processor lacks it."""
    from gan_fast import _C

    before = _C.cpu_capability()
    try:
        _C.set_cpu_capability(name)
    except ValueError as error:
        pytest.skip(str(error))
    try:
        yield
    finally:
        _C.set_cpu_capability(before)
