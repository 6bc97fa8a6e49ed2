"""What today's PyTorch and Python took away from code written for PyTorch 1.9, given back while it is wanted.

torch.optim.Adam(betas=[0, 0.99])        refuses an integer beside a float (NVlabs/stylegan3 issues 655, 656)
torch.utils.data.Sampler(data_source)    takes no argument any more
distutils.util.strtobool                 gone with distutils from Python 3.12 on
processes started by multiprocessing     import everything anew, and need the replacements before they do
"""

from __future__ import annotations

import functools
import multiprocessing.spawn
import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import torch
from torch.utils.data import Sampler


class Fixes:
    """Applied once, for however many want them, and taken back when nobody does any more."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []
        self._users: dict[Callable[..., Any], Callable[[], tuple[Any, ...]]] = {}
        self.names: list[str] = []

    def install(self, user: Callable[..., Any], arguments: Callable[[], tuple[Any, ...]]) -> list[str]:
        """Names of what was changed. Every process that is started meanwhile calls `user` with `arguments()`."""
        self._users[user] = arguments
        if not self._undo:
            self._adam()
            self._sampler()
            self._distutils()
            self._processes()
        return list(self.names)

    def uninstall(self, user: Callable[..., Any]) -> list[str]:
        """The same names; nothing is taken back while another user is there."""
        if self._users.pop(user, None) is None:
            return []
        names = list(self.names)
        if not self._users:
            for undo in reversed(self._undo):
                undo()
            self._undo.clear()
            self.names.clear()
        return names

    def _set(self, where: Any, name: str, value: Any) -> None:
        before = vars(where).get(name)

        def undo() -> None:
            if before is None:
                delattr(where, name)
            else:
                setattr(where, name, before)

        setattr(where, name, value)
        self._undo.append(undo)
        self.names.append(f"{where.__module__ if isinstance(where, type) else ''}.{where.__name__}.{name}".lstrip("."))

    def _adam(self) -> None:
        initialise = torch.optim.Adam.__init__

        @functools.wraps(initialise)
        def with_float_betas(
            self: Any, params: Any, lr: Any = 1e-3, betas: Any = (0.9, 0.999), *args: Any, **kwargs: Any
        ) -> None:
            if isinstance(betas, (tuple, list)):
                betas = tuple(float(beta) if isinstance(beta, int) else beta for beta in betas)
            initialise(self, params, lr, betas, *args, **kwargs)

        self._set(torch.optim.Adam, "__init__", with_float_betas)

    def _sampler(self) -> None:
        if "__init__" in vars(Sampler):
            return

        def with_data_source(self: Any, data_source: Any = None) -> None:
            """The argument was never used."""

        self._set(Sampler, "__init__", with_data_source)

    def _distutils(self) -> None:
        if find_spec("distutils") is not None:
            return
        package, util = ModuleType("distutils"), ModuleType("distutils.util")
        package.util, util.strtobool = util, strtobool  # type: ignore[attr-defined]
        package.__path__ = []

        def undo() -> None:
            del sys.modules["distutils"], sys.modules["distutils.util"]

        sys.modules.update({"distutils": package, "distutils.util": util})
        self.names += ["distutils", "distutils.util"]
        self._undo.append(undo)

    def _processes(self) -> None:
        prepare = multiprocessing.spawn.get_preparation_data

        @functools.wraps(prepare)
        def with_replacements(name: str) -> dict[str, Any]:
            # The new process unpickles this dictionary before it imports the main module.
            calls = [_Call(user, arguments()) for user, arguments in self._users.items()]
            return {**prepare(name), "gan_fast": calls}

        self._set(multiprocessing.spawn, "get_preparation_data", with_replacements)


class _Call:
    """Pickles as a call: the function runs where it is unpickled."""

    def __init__(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


fixes = Fixes()


def strtobool(value: str) -> int:
    """1 for y, yes, t, true, on and 1, 0 for n, no, f, false, off and 0, in any case; ValueError for all else."""
    if value.lower() in ("y", "yes", "t", "true", "on", "1"):
        return 1
    if value.lower() in ("n", "no", "f", "false", "off", "0"):
        return 0
    raise ValueError(f"invalid truth value {value!r}: expected yes or no")
