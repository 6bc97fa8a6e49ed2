"""Network pickles as the persistence format of NVIDIA's code bases lays them out, made from this package's networks.

The modules that such a pickle names (`torch_utils.persistence`, `dnnlib.util`) are stood in for while it is written and
gone again when it is read. Every class brings source code that would leave a mark if it were run.
"""

from __future__ import annotations

import contextlib
import pickle
import sys
import types
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import nn

SOURCE = "import pathlib; pathlib.Path({mark!r}).write_text('module_src ran')\n"
PRECISION = ("use_fp16", "conv_clamp")


class EasyDict(dict):
    """Pickled as `dnnlib.util.EasyDict`."""


EasyDict.__module__, EasyDict.__qualname__ = "dnnlib.util", "EasyDict"


def _reconstruct_persistent_obj(meta: Any) -> Any:
    raise AssertionError("a converter called into the pickle's own loader")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent:
    """A module as the format pickles it: its attributes, its class's name and its class's source."""

    def __init__(self, module: nn.Module, mark: str, init_kwargs: dict[str, Any] | None) -> None:
        children = OrderedDict(
            (name, None if child is None else Persistent(child, mark, None)) for name, child in module._modules.items()
        )
        state = {key: value for key, value in module.__dict__.items() if key != "init_kwargs"}
        state |= {"_modules": children, "_init_args": (), "_init_kwargs": EasyDict(init_kwargs or {})}
        if hasattr(module, "low_precision"):
            state["use_fp16"] = module.low_precision is not None
        self.meta = {
            "type": "class",
            "version": 6,
            "module_src": SOURCE.format(mark=mark),
            "class_name": {"MinibatchStdDev": "MinibatchStdLayer"}.get(type(module).__name__, type(module).__name__),
            "state": state,
        }

    def __reduce__(self) -> Any:
        return _reconstruct_persistent_obj, (self.meta,), None, None, None


@contextlib.contextmanager
def writing() -> Iterator[None]:
    """Inside, the stand-in modules can be named by pickles that are written."""
    persistence = types.ModuleType("torch_utils.persistence")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util = types.ModuleType("dnnlib.util")
    util.EasyDict = EasyDict
    names = {
        "torch_utils": types.ModuleType("torch_utils"),
        "torch_utils.persistence": persistence,
        "dnnlib": types.ModuleType("dnnlib"),
        "dnnlib.util": util,
    }
    sys.modules.update(names)
    try:
        yield
    finally:
        for name in names:
            del sys.modules[name]


def easy(value: Any) -> Any:
    """Nested dictionaries as the training code keeps them."""
    return EasyDict({k: easy(v) for k, v in value.items()}) if isinstance(value, dict) else value


def network(module: nn.Module, mark: str, drop: tuple[str, ...] = ()) -> Persistent:
    kwargs = {key: value for key, value in module.init_kwargs.items() if key not in drop}
    return Persistent(module, mark, easy(kwargs))


def dumps(data: Any, protocol: int) -> bytes:
    with writing():
        return pickle.dumps(data, protocol)
