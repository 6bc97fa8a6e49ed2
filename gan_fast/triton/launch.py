"""Runs the plans of `plans.py`: the four ops of `modulated_convolution` by the Triton kernels.

Called below autograd with tensors of one CUDA device (of the CPU under TRITON_INTERPRET=1); no tensor may be empty.

The first call of a kind makes a plan and launches through Triton's just-in-time compiler; later ones of the same kind
are replays: what the call allocates, the pointers in their places, the compiled kernel. A kind (`plans.kind_of`) is
everything a plan and the choice of a compiled kernel depend on; a call of no kind always goes the first one's way.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gan_fast.triton import modulated_convolution as kernels
from gan_fast.triton import plans
from gan_fast.triton.plans import Kind, Plan, Target, kind_of, order_of

Given = tuple[Tensor | None, ...]
Sources = Mapping[str, tuple[int, Callable[[Tensor], Tensor]]]
_MOST = 4096  # replays kept: shapes without end, as of images of any size, must not fill memory
_replays: dict[Kind | None, Replay] = {}


class Replay:
    """A plan without its tensors: launched again on others of the same kind.

    `places` says for each tensor the kernel takes which of those given it is, then which of those made; `conversions`
    what has to be done to those given first.
    """

    __slots__ = ("conversions", "device", "launch", "made", "order", "places", "pointers", "scalars")

    def __init__(
        self,
        plan: Plan,
        launch: Callable[..., Any],
        given: Given,
        sources: Sources,
        pointers: bool,
        order: torch.memory_format,
    ) -> None:
        self.device, self.launch, self.pointers, self.order = plan.result.device, launch, pointers, order
        made = (plan.result, *plan.partials)
        self.made = [(t.shape, t.stride(), t.dtype) for t in made]
        self.conversions: list[tuple[int, Callable[[Tensor], Tensor]]] = []
        self.places: list[int | None] = []
        values = list(plan.arguments.items())
        tensors = plan.tensors
        for name, value in values[:tensors]:
            if value is None:
                self.places.append(None)
            elif name in sources:
                place, conversion = sources[name]
                self.places.append(place)
                if value is not given[place]:
                    self.conversions.append((place, conversion))
            else:
                self.places.append(len(given) + next(i for i, t in enumerate(made) if t is value))
        self.scalars = tuple(value for _, value in values[tensors:])

    def __call__(self, *given: Tensor | None) -> list[Tensor]:
        """The result and the partial sums."""
        device = self.device
        if device.type == "cuda" and torch.cuda.current_device() != device.index:
            with torch.cuda.device(device):
                return self._run(given)
        return self._run(given)

    def _run(self, given: Given) -> list[Tensor]:
        made = [
            torch.empty_strided(shape, stride, dtype=dtype, device=self.device) for shape, stride, dtype in self.made
        ]
        tensors: list[Any] = [*given, *made]  # which keeps what is converted until it is launched
        for place, conversion in self.conversions:
            tensors[place] = conversion(tensors[place])
        if self.pointers:  # numbers, which Triton's launcher does not have to ask a tensor and the driver for
            values = [None if i is None else tensors[i].data_ptr() for i in self.places]
        else:
            values = [None if i is None else tensors[i] for i in self.places]
        self.launch(*values, *self.scalars)
        if self.order != torch.channels_last:
            made[0] = made[0].contiguous(memory_format=self.order)
        return made


def run(plan: Plan) -> Any:
    """Launches on the current stream of the tensors' device; returns Triton's compiled kernel."""
    device = plan.result.device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        return _jit(plan)(*plan.arguments.values())


def _jit(plan: Plan) -> Callable[..., Any]:
    kernel = getattr(kernels, plan.kernel)[plan.grid]
    return functools.partial(kernel, num_warps=plan.tile.warps, num_stages=plan.tile.stages)


def _first(
    plan: Plan,
    kind: Kind | None,
    given: Given,
    sources: Sources,
    interpreted: bool,
    order: torch.memory_format = torch.channels_last,
) -> list[Tensor]:
    """Launches a plan and, where there is a kind, keeps it. The result is in the memory order given."""
    compiled = run(plan)
    if kind is not None and (interpreted or compiled is not None):
        if len(_replays) >= _MOST:
            _replays.clear()
        # a compiled kernel is launched by compiled[grid], three numbers, with every argument: no binding, no hashing
        launch = _jit(plan) if interpreted else compiled[(*plan.grid, 1, 1)[:3]]
        _replays[kind] = Replay(plan, launch, given, sources, not interpreted, order)
    result = plan.result if order == torch.channels_last else plan.result.contiguous(memory_format=order)
    return [result, *plan.partials]


def forget() -> None:
    """Forgets all replays."""
    _replays.clear()


def target_of(x: Tensor) -> Target:
    """The card that holds x; for tensors of the CPU the interpreter."""
    return Target.of(x.device) if x.device.type == "cuda" else Target(processors=4, interpreted=True)


def _summed(partial: Tensor) -> Tensor:
    """The sum over the second dimension, which often has one entry."""
    return partial.squeeze(1) if partial.shape[1] == 1 else partial.sum(1)


def forward(
    x: Tensor,
    w: Tensor,
    s: Tensor | None,
    d: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    padding: int,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    kind: Kind | None = None,
) -> Tensor:
    """y, as `reference.modulated_convolution.modulated_convolution` gives it."""
    given = (x, w, s, d, noise, bias)
    kind = kind or kind_of("forward", given, (padding, act, alpha, gain, clamp))
    if (replay := _replays.get(kind)) is not None:
        (y,) = replay(*given)
    else:
        target = target_of(x)
        plan = plans.product(
            x, w, s, d, target, padding=padding, noise=noise, bias=bias, act=act, alpha=alpha, gain=gain, clamp=clamp
        )
        sources = {
            "x": (0, plans.image),
            "w": (1, plans.image),
            "load_scale": (2, plans.scale),
            "store_scale": (3, plans.scale),
            "noise": (4, plans.vector),
            "bias": (5, plans.vector),
        }
        (y,) = _first(plan, kind, given, sources, target.interpreted, order_of(x))
    return y


def input_gradient(
    dz: Tensor,
    w: Tensor,
    s: Tensor | None,
    d: Tensor | None,
    x: Tensor | None,
    padding: int,
    kind: Kind | None = None,
) -> tuple[Tensor, Tensor]:
    """dx, and ds where x is given."""
    given = (dz, w, s, d, x)
    kind = kind or kind_of("input gradient", given, (padding,))
    if (replay := _replays.get(kind)) is not None:
        dx, *partials = replay(*given)
    else:
        target = target_of(dz)
        plan = plans.product(dz, w, d, s, target, padding=padding, transposed=True, other=x)
        sources: Sources = {
            "x": (0, plans.image),
            "w": (1, functools.partial(plans.matrix, transposed=True)),
            "load_scale": (3, plans.scale),
            "store_scale": (2, plans.scale),
            "other": (4, plans.image),
        }
        dx, *partials = _first(plan, kind, given, sources, target.interpreted, order_of(dz))
    ds = _summed(partials[0]) if partials else dz.new_empty(0, dtype=torch.float32)
    return dx, ds


def weight_gradient(
    dz: Tensor, x: Tensor, s: Tensor | None, d: Tensor | None, size: int, padding: int, kind: Kind | None = None
) -> Tensor:
    """dw, channels_last."""
    given = (dz, x, s, d)
    kind = kind or kind_of("weight gradient", given, (size, padding))
    if (replay := _replays.get(kind)) is not None:
        (parts,) = replay(*given)
    else:
        target = target_of(x)
        plan = plans.weight_gradient(dz, x, s, d, target, size=size, padding=padding)
        sources = {
            "dz": (0, plans.image),
            "x": (1, plans.image),
            "s": (2, plans.scale),
            "d": (3, plans.scale),
        }
        (parts,) = _first(plan, kind, given, sources, target.interpreted)
    dw = parts.squeeze(0) if parts.shape[0] == 1 else parts.sum(0).to(x.dtype)
    return dw.permute(0, 3, 1, 2)


def epilogue_gradient(
    dy: Tensor,
    y: Tensor,
    noise: Tensor | None,
    act: int,
    alpha: float,
    gain: float,
    clamp: float,
    kind: Kind | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """dz, sums and products."""
    given = (dy, y, noise)
    kind = kind or kind_of("epilogue gradient", given, (act, alpha, gain, clamp))
    if (replay := _replays.get(kind)) is not None:
        dz, sums, products = replay(*given)
    else:
        target = target_of(y)
        plan = plans.epilogue_gradient(dy, y, noise, target, act=act, alpha=alpha, gain=gain, clamp=clamp)
        sources = {"dy": (0, plans.image), "y": (1, plans.image), "noise": (2, plans.vector)}
        dz, sums, products = _first(plan, kind, given, sources, target.interpreted, order_of(y))
    return dz, _summed(sums), _summed(products)
