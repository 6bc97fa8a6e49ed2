"""rosinality's stylegan2-pytorch, and the many code bases that carry its `op` folder, on gan_fast's ops.

    import gan_fast.compat.rosinality
    gan_fast.compat.rosinality.install()          # or install("models.stylegan2.op"), where the folder lies elsewhere

    python -m gan_fast.compat.rosinality train.py path_to_lmdb ...

`op.fused_act`, `op.upfirdn2d` and `op.conv2d_gradfix` are ours from then on. The originals build their plugins when
they are imported, so install before that.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from gan_fast.compat._replace import Replacement
from gan_fast.compat._torch import fixes
from gan_fast.compat.nvlabs import conv2d_gradfix
from gan_fast.compat.rosinality import fused_act, upfirdn2d

__all__ = ["install", "uninstall"]

_installed: dict[str, Replacement] = {}


def install(package: str = "op") -> list[str]:
    """Serve the modules of an `op` folder from gan_fast, before or after they were imported.

    Args:
        package: the full name of the folder as a package.

    Returns:
        What is replaced: full names of modules, then of what was changed in torch and the standard library.
    """
    if package not in _installed:
        modules = {"fused_act": fused_act, "upfirdn2d": upfirdn2d, "conv2d_gradfix": conv2d_gradfix}
        served = {f"{package}.{name}": module for name, module in modules.items()}
        _installed[package] = Replacement(served, {package: _fill})
    return _installed[package].install() + fixes.install(_install_all, lambda: tuple(_installed))


def uninstall() -> list[str]:
    """Undo every `install`; the list of what was replaced. A module that took an op meanwhile keeps it."""
    names = [name for replacement in _installed.values() for name in replacement.uninstall()]
    names += fixes.uninstall(_install_all)
    _installed.clear()
    conv2d_gradfix.reset()
    return names


def _fill(package: ModuleType) -> None:
    """What the folder's own `__init__` has, where there is no folder. Importing a submodule sets an attribute of its
    name, so that the function of the same name comes after it."""
    for name in ("fused_act", "upfirdn2d", "conv2d_gradfix"):
        importlib.import_module(f"{package.__name__}.{name}")
    vars(package).update(
        FusedLeakyReLU=fused_act.FusedLeakyReLU,
        fused_leaky_relu=fused_act.fused_leaky_relu,
        upfirdn2d=upfirdn2d.upfirdn2d,
        conv2d_gradfix=conv2d_gradfix,
    )


def _install_all(*packages: str) -> None:
    for package in packages:
        install(package)
