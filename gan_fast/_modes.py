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
# torch 2.11's compiler does not trace the question, so the kinds of device that everybody has are asked once.
_KINDS = ("cpu", "cuda", "meta", "mps", "xpu")
_WITH_AUTOCAST = frozenset(kind for kind in _KINDS if torch.amp.is_autocast_available(kind))
_dispatch_modes = torch._C._len_torch_dispatch_stack


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


def plain_eager() -> bool:
    """Whether nothing watches this call from Python: no tracer, no transform, no mode, no reference wanted.

    Then a small loss may go to the extension past `torch.ops`, which would cost more than the loss does.
    """
    return not (
        torch.compiler.is_compiling() or use_reference() or torch._C._len_torch_function_stack() or _dispatch_modes()
    )


def use_reference() -> bool:
    """Whether the public functions must run the reference now (see the module's docstring)."""
    if _reference_depth:
        return True
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def has_autocast(kind: str) -> bool:
    """Whether a kind of device, such as "cuda", has autocast at all."""
    return kind in _WITH_AUTOCAST or (kind not in _KINDS and torch.amp.is_autocast_available(kind))
