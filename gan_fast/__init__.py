"""gan_fast: exact, fused losses, penalties and ops for GAN training, and the training API above them."""

from gan_fast import _build

_build.check()  # before the extension is loaded: one for another torch would fail with an undefined symbol

from gan_fast import _C, _library, losses, nvrtc, ops, penalties  # noqa: E402, F401
from gan_fast._modes import reference_mode  # noqa: E402

# for cards that the embedded device code does not cover
_C.set_nvrtc_compiler(nvrtc.compile)

__version__ = "0.1.0"
__all__ = ["Trainer", "__version__", "losses", "ops", "penalties", "reference_mode"]


def __getattr__(name: str) -> object:
    # the trainer brings the upper layers and their dependencies, which the engine alone does not need.
    if name == "Trainer":
        from gan_fast.training import Trainer

        return Trainer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
