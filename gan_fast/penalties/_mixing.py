"""Whether a critic's samples mix: is logit i a function of sample i alone?

The shared plan calls the critic once on cat(real, fake) and divides each sample's gradient by its own factor. That is
exact if no logit depends on another sample. It is tried, not assumed:

    signs     grad_x(sum r_i o_i) = r_i grad_x(sum o_i)_i  for random r_i = +-2^k     no derivative crosses samples, and
              every backward is linear, as of functions and hooks that clamp what passes it is not
    company   o_i stays when the other samples and their arguments are exchanged  no value crosses, detached or not
    apart     o(cat(real, fake)) = o(real), o(fake)       where the critic draws nothing at random

All at perturbed parameters, so that layers which start at zero hide nothing, and on copies of all state, so that
parameters, buffers, module attributes, `.grad` and random streams are as before.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
import random
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from gan_fast.penalties._critics import Kwargs, both, rows_of
from gan_fast.penalties.lean import gradients

# Each sample's arithmetic is the same in both runs of a test, so that they agree to the last bit where a backend is
# deterministic; this many roundings are left for those that are not.
_ROUNDINGS = 64
_COARSEST = 2.0**-3  # however many roundings, half precision must show what doubles with the batch
_SIGNS = 3
_POWERS = 2  # k from -2 to 2: exact, and far from overflow

_Key = tuple[Any, ...]


class _Verdicts:
    """What was found out about one critic, while its modules stay the same objects in the same modes."""

    def __init__(self) -> None:
        self.modules: list[tuple[weakref.ref[nn.Module], bool]] = []
        self.found: dict[_Key, str] = {}

    def fit(self, critic: nn.Module) -> bool:
        modules = list(critic.modules())
        return len(modules) == len(self.modules) and all(
            ref() is module and training == module.training
            for module, (ref, training) in zip(modules, self.modules, strict=True)
        )

    def start(self, critic: nn.Module) -> None:
        self.modules = [(weakref.ref(module), module.training) for module in critic.modules()]
        self.found = {}


_known: weakref.WeakKeyDictionary[nn.Module, _Verdicts] = weakref.WeakKeyDictionary()


def why_not_shared(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    kwargs: tuple[Kwargs, Kwargs],
    augment: Callable[[Tensor], Tensor] | None,
    group: Any | None,
) -> str:
    """Why one call on cat(real, fake) would not do, or "". Looks once for each kind of call.

    Looks again when modules were exchanged, train or eval mode changed, or the call has other arguments, image shapes
    or batch sizes. Under DistributedDataParallel a reason of one rank is every rank's, and all must call alike.
    """
    verdicts = _known.setdefault(critic, _Verdicts())
    if not verdicts.fit(critic):
        verdicts.start(critic)
    key = (real.shape, fake.shape, real.dtype, *map(_describe, kwargs), _which(augment))
    if key not in verdicts.found:
        reason = _look(critic, real, fake, kwargs, augment)
        if group is not None:
            flag = torch.tensor([float(bool(reason))], device=real.device)
            torch.distributed.all_reduce(flag, op=torch.distributed.ReduceOp.MAX, group=group)
            if flag.item() and not reason:
                reason = "another process found that its samples mix"
        verdicts.found[key] = reason
    return verdicts.found[key]


class _Same:
    """An object, compared by identity while it lives: another that later gets its address is another."""

    def __init__(self, thing: Any) -> None:
        self._hash = id(thing)
        try:
            self._thing: Callable[[], Any] = weakref.ref(thing)
        except TypeError:  # lists and the like are kept instead, so that none gets their address
            self._thing = lambda: thing

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self._thing() is not None and self._thing() is other._thing()


def _which(function: Any) -> _Key:
    """What tells one augmentation from another: of functions made anew for each call, their code and what it names."""
    if not inspect.isfunction(function):
        return _who(function)
    return (function.__code__, *map(_who, _named_by(function)))


def _named_by(function: Any) -> list[Any]:
    """What a function's code can name: globals, what it closes over, defaults."""
    if not inspect.isfunction(function):
        return []
    held = [function.__globals__.get(name) for name in function.__code__.co_names]
    held += [c.cell_contents for c in function.__closure__ or () if c != types.CellType()]
    return [*held, *(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]


def _who(thing: Any) -> _Key:
    if inspect.ismethod(thing):
        return (thing.__func__, _Same(thing.__self__))
    if thing is None or isinstance(thing, (bool, str)):
        return (thing,)
    if isinstance(thing, (int, float)):
        return (bool(thing),)  # a strength that grows is no other augmentation, but one that was zero is
    return (_Same(thing),)


def _describe(kwargs: Kwargs) -> tuple[Any, ...]:
    def value(x: Any) -> Any:
        return (x.shape, x.dtype) if isinstance(x, Tensor) else (type(x), repr(x))

    return tuple((name, value(x)) for name, x in sorted(kwargs.items()))


def one_logit_each(logits: Any, samples: int) -> bool:
    """Whether this is one logit a sample: `[N]`, `[N, 1]`, `[N, 1, 1, 1]`."""
    return isinstance(logits, Tensor) and logits.dim() > 0 and len(logits) == samples and logits.numel() == samples


def describe_logits(logits: Any) -> str:
    if isinstance(logits, Tensor):
        return f"logits of shape {list(logits.shape)}"
    if isinstance(logits, (list, tuple)):
        return f"a {type(logits).__name__} of {len(logits)}"
    return f"a {type(logits).__name__}"


class _Trial(nn.Module):
    """Forward and backward in one call, so that recomputation in the backward meets the same parameters."""

    def __init__(self, critic: nn.Module, augment: Callable[[Tensor], Tensor] | None) -> None:
        super().__init__()
        self.critic = critic
        # not a child, if it is a module: its state is kept like the critic's, and its parameters are left alone
        self.__dict__["augment"] = augment or (lambda images: images)

    def forward(self, images: Tensor, kwargs: Kwargs, directions: list[Tensor]) -> tuple[Any, list[Tensor]]:
        """The logits, and grad_x(d . logits) for each direction d."""
        augment: Callable[[Tensor], Tensor] = self.__dict__["augment"]
        logits = self.critic(augment(images), **kwargs)
        if not directions or not one_logit_each(logits, len(images)) or not logits.requires_grad:
            return logits, []
        flat = logits.flatten()
        found = [gradients([flat], [images], [d.to(flat)], retain_graph=True)[0] for d in directions]
        return logits.detach(), [g for g in found if g is not None]


class _Bench:
    """Runs of the critic that all start from the same parameters, buffers and random state."""

    def __init__(
        self, critic: nn.Module, augment: Callable[[Tensor], Tensor] | None, scale: float, noise: torch.Generator
    ) -> None:
        self.trial = _Trial(critic, augment)
        self.parameters = {f"critic.{name}": _perturbed(p, scale, noise) for name, p in critic.named_parameters()}
        self.buffers = {f"critic.{name}": b for name, b in critic.named_buffers()}
        self.stateful = [critic, *([augment] if isinstance(augment, nn.Module) else [])]

    def _generators(self, kwargs: Kwargs) -> list[torch.Generator]:
        """Random streams of their own, where critic, arguments and augmentation hold them."""
        augment = self.trial.__dict__["augment"]
        owners = [augment, getattr(augment, "__self__", None), *(m for s in self.stateful for m in s.modules())]
        held = [*tree_leaves(dict(kwargs)), *_named_by(augment)]
        held += [value for owner in owners for value in getattr(owner, "__dict__", {}).values()]
        return [value for value in held if isinstance(value, torch.Generator)]

    def run(self, images: Tensor, kwargs: Kwargs, directions: list[Tensor]) -> tuple[Any, list[Tensor], bool]:
        """Logits, gradients, and whether anything was drawn at random."""
        with contextlib.ExitStack() as stack:
            for module in self.stateful:
                stack.enter_context(_attributes_kept(module))
            for module in self.stateful[1:]:
                stack.enter_context(_buffers_kept(module))
            generators = self._generators(kwargs)
            stack.enter_context(_random_kept(images.device, generators))
            before = _random_state(images.device, generators)
            state = {**self.parameters, **{name: b.clone() for name, b in self.buffers.items()}}
            logits, gradients = torch.func.functional_call(self.trial, state, (images, kwargs, directions))
            return logits, gradients, not _same(before, _random_state(images.device, generators))


def _examine(
    bench: _Bench, real: Tensor, fake: Tensor, kwargs: tuple[Kwargs, Kwargs], noise: torch.Generator
) -> tuple[str, bool]:
    """Why not, or "", and whether the question was answered at all."""
    n, m = len(real), len(fake)
    try:
        together = both(*kwargs, n, m)
    except ValueError as error:
        return str(error), True
    images = torch.cat([real, fake]).requires_grad_()
    signs = [_signed_powers(n + m, noise).to(real.device) for _ in range(_SIGNS)]
    logits, found, drew = bench.run(images, together, [torch.ones_like(signs[0]), *signs, signs[0] * 4])
    if not one_logit_each(logits, n + m):
        return f"its {describe_logits(logits)} are not one logit for each of the {n + m} samples", True
    if not found:
        return "its logits do not depend on the images", True
    plain, *signed, larger = found
    answered = bool(plain.any())
    if _differ(larger, signed[0] * 4, _ROUNDINGS):
        return _NOT_LINEAR, True
    for r, g in zip(signs, signed, strict=True):
        if _differ(g, plain * r.to(plain).view(-1, *[1] * (plain.dim() - 1)), _ROUNDINGS):
            return _MIX, True
    with torch.no_grad():
        row = torch.arange(n + m, device=images.device)
        for others, own in ((row.where(row < n, 0), slice(n)), (row.where(row >= n, n), slice(n, None))):
            company, _, _ = bench.run(images[others], rows_of(together, n + m, others), [])
            if _differ(company.flatten()[own], logits.flatten()[own], _ROUNDINGS):
                return _MIX, True
        if not drew:
            apart = [bench.run(side, k, [])[0].flatten() for side, k in zip((real, fake), kwargs, strict=True)]
            # other batch sizes may be summed in another order
            if _differ(torch.cat(apart), logits.flatten(), 2.0**14):
                return "one call on real and fake images together gives other logits than two calls", True
    return "", answered


_MIX = "its samples mix: a logit depends on other samples of the batch, as with batch norm in train mode"
_NOT_LINEAR = "a function or a hook in it changes gradients by their size, as clamping them does"


def _signed_powers(count: int, noise: torch.Generator) -> Tensor:
    """`[count]` of +-2^k."""
    sign, power = (torch.randint(0, top, (count,), generator=noise, device="cpu") for top in (2, 2 * _POWERS + 1))
    return (sign * 2.0 - 1) * torch.exp2(power - float(_POWERS))


def _differ(a: Tensor, b: Tensor, roundings: float) -> bool:
    bound = min(roundings * torch.finfo(a.dtype).eps, _COARSEST) * b.abs().max()
    return not bool((a - b).abs().max() <= bound)


def _look(
    critic: nn.Module,
    real: Tensor,
    fake: Tensor,
    kwargs: tuple[Kwargs, Kwargs],
    augment: Callable[[Tensor], Tensor] | None,
) -> str:
    noise = torch.Generator().manual_seed(0)
    tensors = [*critic.parameters(), real]
    # In one precision throughout: rounding must not look like mixing, nor hide it.
    uniform = len({x.dtype for x in tensors if x.is_floating_point()}) == 1
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.enable_grad())
        if uniform:
            for kind in {x.device.type for x in tensors} & {"cpu", "cuda"}:
                stack.enter_context(torch.autocast(kind, enabled=False))
        for scale in (1.0, 0.3, 3.0):
            bench = _Bench(critic, augment, scale, noise)
            reason, answered = _examine(bench, real.detach(), fake.detach(), kwargs, noise)
            if answered:
                return reason
    return ""  # no logit moves with any image, its own or another's


def _perturbed(parameter: Tensor, scale: float, noise: torch.Generator) -> Tensor:
    """The parameter plus noise of the size that initialisations give."""
    if not parameter.is_floating_point():
        return parameter.detach()
    fan_in = parameter[0].numel() if parameter.dim() > 1 and len(parameter) else 100
    change = torch.randn(parameter.shape, generator=noise, device="cpu") * (scale * max(fan_in, 1) ** -0.5)
    return (parameter.detach() + change.to(parameter)).requires_grad_(parameter.requires_grad)


@contextlib.contextmanager
def _attributes_kept(module: nn.Module) -> Iterator[None]:
    """Attributes of all submodules are put back, and what lists, dicts and sets among them hold."""
    before = [(m, dict(m.__dict__)) for m in module.modules()]
    held = [(v, copy.copy(v)) for _, d in before for v in d.values() if type(v) in (list, dict, set)]
    try:
        yield
    finally:
        for m, attributes in before:
            m.__dict__.clear()
            m.__dict__.update(attributes)
        for container, contents in held:
            container.clear()
            (container.extend if isinstance(container, list) else container.update)(contents)


@contextlib.contextmanager
def _buffers_kept(module: nn.Module) -> Iterator[None]:
    before = [(b, b.detach().clone()) for b in module.buffers()]
    try:
        yield
    finally:
        for b, value in before:
            if not torch.equal(b, value):
                b.detach().copy_(value)


def _random_state(device: torch.device, generators: list[torch.Generator]) -> list[Tensor]:
    states = [torch.get_rng_state(), *(g.get_state() for g in generators)]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return states


def _set_random_state(device: torch.device, generators: list[torch.Generator], states: list[Tensor]) -> None:
    torch.set_rng_state(states[0])
    for generator, state in zip(generators, states[1:], strict=False):
        generator.set_state(state)
    if device.type == "cuda":
        torch.cuda.set_rng_state(states[-1], device)


def _same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@contextlib.contextmanager
def _random_kept(device: torch.device, generators: list[torch.Generator]) -> Iterator[None]:
    """torch's streams, these, Python's and NumPy's are put back."""
    before, python, arrays = _random_state(device, generators), random.getstate(), numpy.random.get_state()
    try:
        yield
    finally:
        _set_random_state(device, generators, before)
        random.setstate(python)
        numpy.random.set_state(arrays)
