"""torch_utils.custom_ops: no plugin is built, because gan_fast serves what the plugins would.

A plugin of another name, which a fork brought along, is built by the checkout's own `custom_ops`.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import ModuleType
from typing import Any

__all__ = ["get_plugin", "verbosity"]

# Training scripts set it; there is nothing to be verbose about.
verbosity = "brief"

SERVED = {"bias_act_plugin": "bias_act", "upfirdn2d_plugin": "upfirdn2d", "filtered_lrelu_plugin": "filtered_lrelu"}
# Full names this module is installed under, and the checkout's own modules, once they were needed.
installed: set[str] = set()
_originals: dict[str, ModuleType] = {}


def get_plugin(module_name: str, *args: Any, **kwargs: Any) -> Any:
    """The plugin of a fork. RuntimeError for those that gan_fast stands in for, and where no checkout can build it."""
    if module_name in SERVED:
        op = SERVED[module_name]
        raise RuntimeError(
            f"{module_name} is not built under gan_fast.compat.nvlabs: gan_fast's kernels serve it, "
            f"call torch_utils.ops.{op}.{op}"
        )
    for name in sorted(installed):
        original = _original(name)
        if original is not None:
            return original.get_plugin(module_name, *args, **kwargs)
    raise RuntimeError(
        f"no plugin {module_name!r}: gan_fast.compat.nvlabs knows {', '.join(SERVED)}, and found no checkout's "
        "custom_ops that could build another"
    )


def _original(name: str) -> ModuleType | None:
    """The checkout's own module of this name, run beside ours."""
    if name not in _originals:
        package = sys.modules.get(name.rpartition(".")[0])
        spec = importlib.machinery.PathFinder.find_spec(name, getattr(package, "__path__", None))
        if package is None or spec is None or spec.loader is None:
            return None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        _originals[name] = module
    return _originals[name]
