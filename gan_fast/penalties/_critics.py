"""What a critic is underneath: unwrapping, arguments for both sides, and the state that a step may move only once."""

from __future__ import annotations

import contextlib
import functools
import sys
import warnings
import weakref
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.utils._pytree import tree_leaves

Kwargs = Mapping[str, Any]
_said: weakref.WeakKeyDictionary[nn.Module, set[str]] = weakref.WeakKeyDictionary()


class Unwrapped(NamedTuple):
    """The module whose parameters are trained, and the processes its gradients are averaged over, if any."""

    module: nn.Module
    group: Any | None
    compiled: bool


def say_once(critic: nn.Module, message: str) -> None:
    """Warn about this critic, the first time this is said of it."""
    said = _said.setdefault(critic, set())
    if message not in said:
        said.add(message)
        warnings.warn(message, UserWarning, stacklevel=4)


@functools.cache
def _is_sharded(kind: Hashable) -> bool:
    mro: tuple[type, ...] = getattr(kind, "__mro__", ())
    return any(base.__name__ in ("FullyShardedDataParallel", "FSDPModule") for base in mro)


def _optimized_module() -> type[nn.Module] | tuple[()]:
    """What torch.compile makes of a module; nothing where torch.compile was never imported, which takes a second."""
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    return dynamo.OptimizedModule if dynamo else ()


def unwrap(critic: nn.Module) -> Unwrapped:
    """Look through torch.compile and DistributedDataParallel. Raises TypeError for FSDP and what is not a module."""
    group = None
    compiled = False
    optimized = _optimized_module()
    while True:
        if not isinstance(critic, nn.Module):
            raise TypeError(f"critic is a {type(critic).__name__}; expected a torch.nn.Module, or a list of them")
        if isinstance(critic, nn.parallel.DistributedDataParallel):
            group, critic = critic.process_group, critic.module
        elif isinstance(critic, optimized):
            compiled, critic = True, cast(nn.Module, critic._orig_mod)
        else:
            break
    for module in critic.modules():
        kind: Any = type(module)
        if _is_sharded(kind):
            raise TypeError(
                "critic is sharded by FSDP, whose hooks do not survive a double backward: wrap it in "
                "DistributedDataParallel, or train it unwrapped"
            )
        compiled = compiled or module._compiled_call_impl is not None or isinstance(module, optimized)
    if compiled:
        say_once(
            critic,
            "critic_backward runs the critic's uncompiled module: torch.compile has no double backward. "
            "To compile a whole step use penalties.compile_step",
        )
    return Unwrapped(critic, group, compiled)


def sides(critic_kwargs: Kwargs | Sequence[Kwargs] | None, device: torch.device) -> tuple[Kwargs, Kwargs]:
    """The critic's arguments for real and for fake images."""
    if critic_kwargs is None:
        return {}, {}
    for each in [critic_kwargs] if isinstance(critic_kwargs, Mapping) else critic_kwargs:
        for name, value in each.items():
            if isinstance(value, Tensor) and value.dim() and value.device != device:
                raise ValueError(
                    f"critic_kwargs[{name!r}] is on device {value.device} and the images are on {device}; "
                    "put them on one device"
                )
    if isinstance(critic_kwargs, Mapping):
        return critic_kwargs, critic_kwargs
    if len(critic_kwargs) != 2 or not all(isinstance(side, Mapping) for side in critic_kwargs):
        raise TypeError("critic_kwargs must be one mapping, or a pair of mappings for real and for fake images")
    real, fake = critic_kwargs
    if real.keys() != fake.keys():
        raise ValueError(
            f"critic_kwargs for real images are {sorted(real)}, for fake ones {sorted(fake)}: give the same"
        )
    return real, fake


def both(real: Kwargs, fake: Kwargs, n_real: int, n_fake: int) -> dict[str, Any]:
    """Arguments for one call on cat(real, fake): tensors with one row a sample are put together, others are shared."""
    together: dict[str, Any] = {}
    for name, left in real.items():
        right = fake[name]
        if _per_sample(left, n_real) and _per_sample(right, n_fake):
            together[name] = torch.cat([left, right])
        elif left is right:
            if isinstance(left, Tensor) and left.dim() and n_real != n_fake and len(left) in (n_real, n_fake):
                raise ValueError(
                    f"critic_kwargs[{name!r}] has {len(left)} rows, but there are {n_real} real and {n_fake} fake "
                    "images: give a pair of mappings, for real and for fake"
                )
            if any(_per_sample(each, n_real) for each in tree_leaves(left)) and not isinstance(left, Tensor):
                raise ValueError(
                    f"critic_kwargs[{name!r}] is a {type(left).__name__} that holds tensors with one row a sample, "
                    "which one call cannot put together: give them as arguments of their own, or use plan='autograd'"
                )
            together[name] = left
        else:
            raise ValueError(
                f"critic_kwargs[{name!r}] differs between real and fake images and is not a tensor with one row a "
                "sample, so that one call cannot serve both: use plan='autograd'"
            )
    return together


def _per_sample(value: Any, count: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == count


def rows_of(kwargs: Kwargs, total: int, rows: Tensor) -> dict[str, Any]:
    """The same arguments for a choice of rows."""
    return {name: value[rows] if _per_sample(value, total) else value for name, value in kwargs.items()}


@contextlib.contextmanager
def eager(compiled: bool) -> Iterator[None]:
    """Nothing inside the block runs compiled."""
    if not compiled:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


class OnePowerIteration:
    """Two calls of a critic that see the same weights: spectral norm iterates in the first alone.

    Parametrised weights are computed once and cached over the block; the older hooks are told to stand still after
    `first_call_done`.
    """

    def __init__(self, critic: nn.Module) -> None:
        self._hooks = [
            hook for m in critic.modules() for hook in m._forward_pre_hooks.values() if isinstance(hook, SpectralNorm)
        ]
        self._iterations = [hook.n_power_iterations for hook in self._hooks]
        self._cache = parametrize.cached()

    def first_call_done(self) -> None:
        for hook in self._hooks:
            hook.n_power_iterations = 0

    def __enter__(self) -> OnePowerIteration:
        self._cache.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        for hook, iterations in zip(self._hooks, self._iterations, strict=True):
            hook.n_power_iterations = iterations
        self._cache.__exit__(*error)
