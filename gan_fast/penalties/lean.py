"""Convolution, linear and activation layers whose second order costs what it must."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def fast_double_backward() -> Iterator[None]:
    """Run convolutions, linear layers, activations and pooling with a lean double backward inside the block."""
    yield
