"""Which implementation serves a call: the fused ops, or the plain PyTorch references.

The fused ops serve every call except three kinds, for which the public functions run the reference:
inside `reference_mode()`, under a `torch.func` transform, and under forward-mode AD. The fused ops carry
first- and second-order reverse-mode derivatives; the references are ordinary PyTorch, so every transform works on them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch.autograd import forward_ad

_reference_depth = 0


@contextlib.contextmanager
def reference_mode() -> Iterator[None]:
    """Run every gan_fast function on its plain PyTorch reference inside the block.

    For debugging, for tests, and as the honest baseline of a benchmark. Applies to the whole process, not to one
    thread; blocks may be nested. A graph built inside keeps its reference backward when it is used outside.
    """
    global _reference_depth
    _reference_depth += 1
    try:
        yield
    finally:
        _reference_depth -= 1


def use_reference() -> bool:
    """Whether the public functions must run the reference now (see the module's docstring)."""
    if _reference_depth:
        return True
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
