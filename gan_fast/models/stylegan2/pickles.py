"""Reads a pickle without running it: its opcodes build plain containers and records of what would have been called.

    REDUCE f args  ->  Call(name of f, args)         BUILD state  ->  call.state        GLOBAL m n  ->  Global("m.n")

Nothing is imported, called or constructed. A global that the reader was not told of is refused by name at once, and so
is every opcode that has no business in a file of weights. What the calls mean is for the caller to decide.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, BinaryIO


class PickleError(ValueError):
    """A pickle that is refused: the message names what it asked for. Nothing of it was run."""


@dataclass(frozen=True)
class Global:
    """A function or class that the pickle names, as `module.name`."""

    name: str


@dataclass(eq=False)
class Call:
    """What the pickle would have made by calling `name`, the state it would then have set and its dictionary items."""

    name: str
    args: tuple[Any, ...]
    state: Any = None
    items: list[tuple[Any, Any]] = field(default_factory=list)


_MARK = object()
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}
# Opcodes that put their own argument on the stack: numbers, text, bytes.
_VALUES = {
    opcode.name
    for opcode in pickletools.opcodes
    if opcode.arg
    and not opcode.stack_before
    and opcode.stack_after
    and opcode.stack_after[0] is not pickletools.anyobject
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


PERSISTENT = "a persistent object"


def read(file: BinaryIO, allowed: Collection[str], persistent: bool = False) -> Any:
    """The next object in `file`, made of None, bool, numbers, str, bytes, list, tuple, dict, set, `Global` and `Call`.

    `allowed` are the globals that may be named. `PickleError` for any other, and for what is not a whole pickle. With
    `persistent`, an object kept outside of the pickle is a `Call` of the name `PERSISTENT` with its identity.
    """
    reader = _Reader(allowed, persistent)
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "STOP":
                break
            reader.step(opcode.name, argument)
        return reader.result()
    except PickleError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, MemoryError) as error:
        raise PickleError(f"not a readable pickle: {error}") from error


class _Reader:
    def __init__(self, allowed: Collection[str], persistent: bool) -> None:
        self.allowed = allowed
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise PickleError("not a readable pickle: it does not end with one object")
        return self.stack[0]

    def step(self, opcode: str, argument: Any) -> None:
        if opcode in _VALUES:
            self.stack.append(argument)
        elif opcode in _CONSTANTS:
            self.stack.append(_CONSTANTS[opcode]())
        elif opcode in _TUPLES:
            self.stack.append(self._take_many(_TUPLES[opcode]))
        else:
            handler = getattr(self, f"_{opcode.lower()}", None)
            if handler is None:
                raise PickleError(f"refused: the pickle uses {opcode}, which a file of weights does not need")
            handler(argument)

    def _take(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("not a readable pickle: a mark where an object should be")
        return value

    def _take_many(self, count: int) -> tuple[Any, ...]:
        return tuple([self._take() for _ in range(count)][::-1])

    def _take_to_mark(self) -> list[Any]:
        values = []
        while (value := self.stack.pop()) is not _MARK:
            values.append(value)
        return values[::-1]

    def _top(self) -> Any:
        if self.stack[-1] is _MARK:
            raise PickleError("not a readable pickle: a mark where an object should be")
        return self.stack[-1]

    def _proto(self, version: int) -> None:
        if version > 5:
            raise PickleError(f"refused: pickle protocol {version}, known are 0 to 5")

    def _frame(self, _: Any) -> None:
        pass

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _pop(self, _: Any) -> None:
        self.stack.pop()

    def _pop_mark(self, _: Any) -> None:
        self._take_to_mark()

    def _dup(self, _: Any) -> None:
        self.stack.append(self._top())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._take_to_mark()))

    def _list(self, _: Any) -> None:
        self.stack.append(self._take_to_mark())

    def _dict(self, _: Any) -> None:
        values = self._take_to_mark()
        self.stack.append({})
        self._set_items(values)

    def _frozenset(self, _: Any) -> None:
        self.stack.append({_key(value) for value in self._take_to_mark()})

    def _append(self, _: Any) -> None:
        value = self._take()
        self._container(list, "APPEND").append(value)

    def _appends(self, _: Any) -> None:
        values = self._take_to_mark()
        self._container(list, "APPENDS").extend(values)

    def _additems(self, _: Any) -> None:
        values = self._take_to_mark()
        self._container(set, "ADDITEMS").update(_key(value) for value in values)

    def _setitem(self, _: Any) -> None:
        self._set_items(list(self._take_many(2)))

    def _setitems(self, _: Any) -> None:
        self._set_items(self._take_to_mark())

    def _set_items(self, values: list[Any]) -> None:
        pairs = [(_key(key), value) for key, value in zip(values[::2], values[1::2], strict=True)]
        target = self._top()
        if isinstance(target, Call):
            target.items.extend(pairs)
        else:
            self._container(dict, "SETITEMS").update(pairs)

    def _container(self, kind: type, opcode: str) -> Any:
        if type(self._top()) is not kind:
            raise PickleError(f"refused: {opcode} on something that is no {kind.__name__}")
        return self.stack[-1]

    def _put(self, index: int) -> None:
        self.memo[index] = self._top()

    _binput = _long_binput = _put

    def _memoize(self, _: Any) -> None:
        self.memo[len(self.memo)] = self._top()

    def _get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    _binget = _long_binget = _get

    def _global(self, argument: str) -> None:
        module, name = argument.split(" ", 1)
        self._push_global(module, name)

    def _stack_global(self, _: Any) -> None:
        module, name = self._take_many(2)
        if type(module) is not str or type(name) is not str:
            raise PickleError("refused: a global whose name is not text")
        self._push_global(module, name)

    def _push_global(self, module: str, name: str) -> None:
        full = f"{module}.{name}"
        if full not in self.allowed:
            if module.startswith("dnnlib.tflib"):
                raise PickleError(
                    f"refused: {full} is a TensorFlow network; save it as a PyTorch one first (StyleGAN2-ADA's own "
                    "legacy.py does that, in an environment that trusts the file)"
                )
            raise PickleError(f"refused: the pickle asks for {full}, which is no part of a StyleGAN2 network")
        self.stack.append(Global(full))

    def _reduce(self, _: Any) -> None:
        self._call(*self._take_many(2))

    def _newobj(self, _: Any) -> None:
        self._call(*self._take_many(2))

    def _newobj_ex(self, _: Any) -> None:
        kind, args, keywords = self._take_many(3)
        if keywords:
            raise PickleError("refused: an object made with keyword arguments")
        self._call(kind, args)

    def _call(self, function: Any, args: Any) -> None:
        if type(function) is not Global or type(args) is not tuple:
            raise PickleError("refused: a call of something that is not a named function")
        self.stack.append(Call(function.name, args))

    def _binpersid(self, _: Any) -> None:
        if not self.persistent:
            raise PickleError("refused: an object that is kept outside of the pickle")
        self.stack.append(Call(PERSISTENT, (self._take(),)))

    def _build(self, _: Any) -> None:
        state = self._take()
        target = self._top()
        if type(target) is not Call:
            raise PickleError(f"refused: state set on a {type(target).__name__}")
        target.state = state


def _key(value: Any) -> Any:
    """A dictionary key or set member: text, bytes, numbers, None, or a global. `Call`s and containers are refused."""
    if value is not None and not isinstance(value, (str, bytes, int, float, Global)):
        raise PickleError(f"refused: a {type(value).__name__} as a dictionary key")
    return value
