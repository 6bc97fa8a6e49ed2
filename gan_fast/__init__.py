"""gan_fast: exact, fused losses, penalties and ops for GAN training, and the training API above them."""

__version__ = "0.1.0"
