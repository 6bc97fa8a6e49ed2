"""What a training step must not do if it is to be held by a CUDA graph."""

from __future__ import annotations

from torch.utils._python_dispatch import TorchDispatchMode


class NothingReadBack(TorchDispatchMode):
    """Refuses what a CUDA graph cannot hold: a value that goes to the host, a shape that depends on data."""

    forbidden = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "is_nonzero", "unique")

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        assert name not in self.forbidden, f"{name} waits for the device"
        return func(*args, **(kwargs or {}))
