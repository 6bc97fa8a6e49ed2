"""torch_utils.ops.fma: a * b + c, by `gan_fast.ops`."""

from __future__ import annotations

from gan_fast.ops import fma

__all__ = ["fma"]
