"""What this build brought: the compiled kernels, and the instruction sets they can be run with."""

from __future__ import annotations

import importlib.util

import pytest

HAS_KERNELS = importlib.util.find_spec("gan_fast._C") is not None

needs_kernels = pytest.mark.skipif(
    not HAS_KERNELS, reason="gan_fast._C is not built here (plain references only): pip install -e . builds it"
)
