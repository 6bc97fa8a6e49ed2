"""StyleGAN2-ADA, StyleGAN3, R3GAN and their forks on gan_fast's ops: no plugin is built, no file is changed.

    import gan_fast.compat.nvlabs
    gan_fast.compat.nvlabs.install()          # before the checkout's modules are imported, or after

    python -m gan_fast.compat.nvlabs train.py --outdir=runs ...          # a script of a checkout, as it is

`torch_utils.custom_ops` and the modules of `torch_utils.ops` are ours from then on; `misc`, `persistence`,
`training_stats` and everything else stay the checkout's. Where today's PyTorch refuses what they do, it is let through
(`gan_fast/compat/_torch.py` lists it).
"""

from __future__ import annotations

from gan_fast.compat._replace import Replacement
from gan_fast.compat._torch import fixes
from gan_fast.compat.nvlabs import (
    bias_act,
    conv2d_gradfix,
    conv2d_resample,
    custom_ops,
    filtered_lrelu,
    fma,
    grid_sample_gradfix,
    upfirdn2d,
)

__all__ = ["install", "uninstall"]

_OPS = (bias_act, upfirdn2d, filtered_lrelu, conv2d_resample, conv2d_gradfix, grid_sample_gradfix, fma)
_installed: dict[str, Replacement] = {}


def install(package: str = "torch_utils") -> list[str]:
    """Serve the op modules of a checkout from gan_fast.

    Call it before or after the checkout's modules were imported: in modules that were, the functions are replaced.
    Processes started with `multiprocessing` (one for each GPU) have it too. Calling it again does no harm.

    Args:
        package: where the checkout has its `torch_utils`, for forks that moved it, such as "models.torch_utils".

    Returns:
        What is replaced: full names of modules, then of what was changed in torch and the standard library.
    """
    if package not in _installed:
        modules = {f"{package}.ops.{module.__name__.rpartition('.')[2]}": module for module in _OPS}
        modules[f"{package}.custom_ops"] = custom_ops
        _installed[package] = Replacement(modules, {package: None, f"{package}.ops": None})
        custom_ops.installed.add(f"{package}.custom_ops")
    return _installed[package].install() + fixes.install(_install_all, lambda: tuple(_installed))


def uninstall() -> list[str]:
    """Undo every `install`; the list of what was replaced.

    Functions that were replaced in imported modules are the checkout's own again, and so is what is imported from now
    on. A module that imported an op module meanwhile keeps it: it works on.
    """
    names = [name for replacement in _installed.values() for name in replacement.uninstall()]
    names += fixes.uninstall(_install_all)
    _installed.clear()
    custom_ops.installed.clear()
    conv2d_gradfix.reset()
    return names


def _install_all(*packages: str) -> None:
    for package in packages:
        install(package)
