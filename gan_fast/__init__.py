"""gan_fast: exact, fused losses, penalties and ops for GAN training, and the training API above them."""

import torch  # loads the libraries that the extension links

from gan_fast import _C, _library, losses
from gan_fast._modes import reference_mode

__version__ = "0.1.0"
__all__ = ["losses", "reference_mode", "__version__"]
