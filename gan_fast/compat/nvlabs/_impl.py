"""The `impl=` argument of the originals: "cuda" is whatever serves the device, "ref" the plain PyTorch reference."""

from __future__ import annotations

import contextlib

from gan_fast import reference_mode

_AS_IT_IS: contextlib.AbstractContextManager[None] = contextlib.nullcontext()


def implementation(impl: str) -> contextlib.AbstractContextManager[None]:
    if impl == "cuda":
        return _AS_IT_IS
    if impl == "ref":
        return reference_mode()
    raise ValueError(f"impl must be 'cuda' (the fast op of the tensor's device) or 'ref' (plain PyTorch), got {impl!r}")
