"""gan_fast: exact, fused losses, penalties and ops for GAN training, and the training API above them."""

import torch  # loads the libraries that the extension links

from gan_fast import _C, _library, losses
from gan_fast._modes import reference_mode

__version__ = "0.1.0"
__all__ = ["Trainer", "losses", "reference_mode", "__version__"]


def __getattr__(name: str) -> object:
    # The trainer brings the upper layers and their dependencies, which the engine alone does not need.
    if name == "Trainer":
        from gan_fast.training import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
