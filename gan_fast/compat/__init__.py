"""gan_fast under the names of other code bases: their files stay as they are, the ops behind the names are ours.

    gan_fast.compat.nvlabs       StyleGAN2-ADA, StyleGAN3, R3GAN and their forks: torch_utils.{ops,custom_ops}
    gan_fast.compat.rosinality   stylegan2-pytorch and its forks: op

Each has `install()` and `uninstall()`, which return what they replaced. `cuda_on_cpu()` is for scripts that name CUDA.
"""

from gan_fast.compat._cuda_on_cpu import cuda_on_cpu

__all__ = ["cuda_on_cpu"]
