"""gan_fast: exact, fused losses, penalties and ops for GAN training, and the training API above them."""

from gan_fast import _build

_build.check()  # before the extension is loaded: one for another torch would fail with an undefined symbol

from gan_fast import _C, _library, losses  # noqa: E402, F401
from gan_fast._modes import reference_mode  # noqa: E402

__version__ = "0.1.0"
__all__ = ["__version__", "losses", "reference_mode"]
