"""Puts modules of ours under names of other code bases, before those were imported or after.

A name that nobody imported yet is answered by a finder, first on `sys.meta_path`. A module that was imported keeps its
place, since others hold it: the functions in it are replaced, and so are references to them that other modules took
with `from module import function`. A package is left to the checkout that has it, so that whatever else lies in it
stays importable; only where there is none an empty one stands in.
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType, ModuleType
from typing import Any

_MISSING = object()


class _Stored:
    """An entry of a dictionary, as it was."""

    def __init__(self, where: dict[str, Any], name: str, value: Any) -> None:
        self.where, self.name, self.before = where, name, where.get(name, _MISSING)
        where[name] = value

    def restore(self) -> None:
        if self.before is _MISSING:
            self.where.pop(self.name, None)
        else:
            self.where[self.name] = self.before


class _Loader:
    def __init__(self, served: ModuleType | None) -> None:
        self.served = served

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """The import system's own module."""

    def exec_module(self, module: ModuleType) -> None:
        if self.served is not None:
            # A module may put another in its place; the import system hands that one out.
            sys.modules[module.__name__] = self.served


class Replacement:
    """Modules under other names: `install` puts them there, `uninstall` takes them away.

    modules: full name to the module that serves it. packages: the packages around them, outermost first, with what to
    do once an empty one stands in for it, if anything.
    """

    def __init__(
        self, modules: Mapping[str, ModuleType], packages: Mapping[str, Callable[[ModuleType], None] | None]
    ) -> None:
        self.modules = dict(modules)
        self.packages = dict(packages)
        self._before: list[_Stored] = []
        # Imported modules that were filled, with the class each had.
        self._filled: list[tuple[ModuleType, type[ModuleType]]] = []

    def install(self) -> list[str]:
        """Names of the modules that are served from now on."""
        loaded = {name: sys.modules[name] for name in self.modules if name in sys.modules}
        replaced: dict[int, tuple[Any, Any]] = {}
        for name, module in loaded.items():
            if module is not self.modules[name] and not any(module is filled for filled, _ in self._filled):
                replaced |= self._fill(module, self.modules[name])
        if replaced:
            self._follow(replaced, [*loaded.values(), *self.modules.values()])
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)
        return list(self.modules)

    def uninstall(self) -> list[str]:
        """The same names. Modules that were imported while it was installed keep what they took."""
        if self not in sys.meta_path:
            return []
        sys.meta_path.remove(self)
        for stored in reversed(self._before):
            stored.restore()
        for module, kind in self._filled:
            module.__class__ = kind
        self._before.clear()
        self._filled.clear()
        stand_ins = {
            name for name in self.packages if isinstance(getattr(sys.modules.get(name), "__loader__", None), _Loader)
        }
        served = {name for name, module in self.modules.items() if sys.modules.get(name) is module}
        for name in served | stand_ins:
            module = sys.modules.pop(name)
            package, _, last = name.rpartition(".")
            if package in sys.modules and vars(sys.modules[package]).get(last) is module:
                delattr(sys.modules[package], last)
        return list(self.modules)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname in self.modules:
            # A string, not the module's file: the import system would look for a cached compilation of it.
            loader: Any = _Loader(self.modules[fullname])
            return importlib.machinery.ModuleSpec(fullname, loader, origin="gan_fast.compat")
        if fullname in self.packages and not self._elsewhere(fullname, path):
            loader = _StandIn(self.packages[fullname])
            return importlib.machinery.ModuleSpec(fullname, loader, origin="gan_fast.compat", is_package=True)
        return None

    def _elsewhere(self, name: str, path: Sequence[str] | None) -> bool:
        finders = [finder for finder in sys.meta_path if not isinstance(finder, Replacement)]
        return any(finder.find_spec(name, path) is not None for finder in finders)

    def _fill(self, module: ModuleType, ours: ModuleType) -> dict[int, tuple[Any, Any]]:
        """Put our names into an imported module: what was replaced, by identity."""
        replaced = {}
        for name in ours.__all__:
            before, new = vars(module).get(name), getattr(ours, name)
            if isinstance(before, (FunctionType, type)):
                replaced[id(before)] = (before, new)
            self._before.append(_Stored(vars(module), name, new))
        self._filled.append((module, type(module)))
        module.__class__ = type(ours)
        return replaced

    def _follow(self, replaced: Mapping[int, tuple[Any, Any]], but: Sequence[ModuleType]) -> None:
        """Replace references in other modules to functions that were replaced."""
        done = {id(module) for module in but}
        for module in list(sys.modules.values()):
            names = getattr(module, "__dict__", None)
            if id(module) in done or not isinstance(names, dict):
                continue
            for name, value in list(names.items()):
                if id(value) in replaced and replaced[id(value)][0] is value:
                    self._before.append(_Stored(names, name, replaced[id(value)][1]))


class _StandIn(_Loader):
    """An empty package where no checkout has one."""

    def __init__(self, fill: Callable[[ModuleType], None] | None) -> None:
        super().__init__(None)
        self.fill = fill

    def exec_module(self, module: ModuleType) -> None:
        if self.fill is not None:
            self.fill(module)
