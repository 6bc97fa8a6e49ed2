"""StyleGAN3's modulated convolution under its own name and arguments, for a networks file that wants the fused one.

    from gan_fast.compat.stylegan3 import modulated_conv2d     # StyleGAN2's is gan_fast.ops.modulated_conv2d

A checkout defines this function in its networks file, which `compat.nvlabs.install()` leaves alone.
"""

from __future__ import annotations

from gan_fast.ops import modulated_conv2d_v3 as modulated_conv2d

__all__ = ["modulated_conv2d"]
