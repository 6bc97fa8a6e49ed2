"""The adversarial losses, forward and backward in float32, against what a careful user writes in plain PyTorch.

Sizes are real logits, with as many fake: 64 (one logit a sample), 61,504 (a 16-image PatchGAN map `[16, 1, 62, 62]`)
and 4,194,304. The plain compositions are the eager baseline and, through `torch.compile`, the compiled one; for the
non-saturating critic the two spellings in common use both run: `binary_cross_entropy_with_logits` with targets
allocated beforehand, and softplus.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast import losses
from gan_fast.bench.cases import Case, Contender, Prepared, Role

SHAPES = {64: (64, 1), 61_504: (16, 1, 62, 62), 4_194_304: (1024, 1, 64, 64)}
Composition = Callable[[Tensor, Tensor], Tensor]


def _softplus_pair(r: Tensor, f: Tensor) -> Tensor:
    return F.softplus(-r).mean() + F.softplus(f).mean()


PLAIN: dict[str, Composition] = {
    "minimax": _softplus_pair,
    "non_saturating": _softplus_pair,
    "wasserstein": lambda r, f: f.mean() - r.mean(),
    "hinge": lambda r, f: F.relu(1 - r).mean() + F.relu(1 + f).mean(),
    "least_squares": lambda r, f: 0.5 * (r - 1).square().mean() + 0.5 * f.square().mean(),
    "relativistic": lambda r, f: F.softplus(f - r).mean(),
    "relativistic_average": lambda r, f: F.softplus(f.mean() - r).mean() + F.softplus(f - r.mean()).mean(),
}
# Least ratio to the faster eager baseline; never slower than torch.compile, within the noise of a median.
EAGER_TARGETS = {64: 1.8, 61_504: 3.0, 4_194_304: 2.0}
COMPILED_TARGET = 0.97
LOGIT_GRADIENTS_TARGET = 4.0


def _logits(shape: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.randn(*shape, generator=generator).to(device).requires_grad_() for _ in range(2))
    return real, fake


def forward_backward(function: Callable[..., Tensor], *leaves: Tensor) -> Callable[[], Sequence[Tensor]]:
    """A job: the value and its gradient for every leaf."""

    def run() -> Sequence[Tensor]:
        value = function(*leaves)
        return [value, *torch.autograd.grad(value, leaves)]

    return run


def exact(function: Callable[..., Tensor], *leaves: Tensor) -> tuple[Tensor, ...]:
    """The same job in float64."""
    wide = [x.detach().double().requires_grad_() for x in leaves]
    value = function(*wide)
    return (value.detach(), *torch.autograd.grad(value, wide))


def compiled(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`torch.compile` with static shapes: the fastest it can be for one size."""
    compiled_function: Callable[..., Tensor] = torch.compile(function, fullgraph=True, dynamic=False)
    return compiled_function


def _discriminator(name: str, size: int) -> Case:
    plain = PLAIN[name]
    with_bce = name in ("minimax", "non_saturating")
    names = ["gan_fast", "eager", "torch.compile", *(["eager BCE pair"] if with_bce else [])]
    targets: dict[Role, float] = {}
    if with_bce:
        targets = {"eager": EAGER_TARGETS[size], "compiled": COMPILED_TARGET}

    def build(device: torch.device) -> Prepared:
        real, fake = _logits(SHAPES[size], device)
        loss = losses.get(name)()
        contenders = [
            Contender(
                "gan_fast", "ours", forward_backward(lambda r, f: loss.discriminator(real=r, fake=f), real, fake)
            ),
            Contender("eager", "eager", forward_backward(plain, real, fake)),
            Contender("torch.compile", "compiled", forward_backward(compiled(plain), real, fake)),
        ]
        if with_bce:
            ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
            bce = F.binary_cross_entropy_with_logits
            pair = forward_backward(lambda r, f: bce(r, ones) + bce(f, zeros), real, fake)
            contenders.append(Contender("eager BCE pair", "eager", pair))
        return Prepared(tuple(contenders), exact(plain, real, fake))

    return Case(
        name=f"discriminator/{name}/{size}",
        group="adversarial losses",
        size=size,
        traffic=2 * 2 * 4 * size,
        contenders=tuple(names),
        build=build,
        targets=targets,
    )


def _logit_gradients(size: int) -> Case:
    """The critic's loss gradient without autograd, against autograd doing the same."""

    def build(device: torch.device) -> Prepared:
        real, fake = _logits(SHAPES[size], device)
        ones, zeros = torch.ones_like(real), torch.zeros_like(fake)
        loss, bce = losses.NonSaturatingLoss(), F.binary_cross_entropy_with_logits

        def ours() -> Sequence[Tensor]:
            return loss.logit_gradients(real=real, fake=fake)

        def gradients_of(function: Composition) -> Callable[[], Sequence[Tensor]]:
            return lambda: torch.autograd.grad(function(real, fake), (real, fake))

        contenders = (
            Contender("gan_fast", "ours", ours),
            Contender("eager", "eager", gradients_of(_softplus_pair)),
            Contender("eager BCE pair", "eager", gradients_of(lambda r, f: bce(r, ones) + bce(f, zeros))),
        )
        return Prepared(contenders, exact(_softplus_pair, real, fake)[1:])

    return Case(
        name=f"logit_gradients/non_saturating/{size}",
        group="adversarial losses",
        size=size,
        traffic=2 * 2 * 4 * size,
        contenders=("gan_fast", "eager", "eager BCE pair"),
        build=build,
        targets={"eager": LOGIT_GRADIENTS_TARGET},
    )


def _generator(name: str, size: int) -> Case:
    def plain(f: Tensor) -> Tensor:
        return F.softplus(-f).mean()

    def build(device: torch.device) -> Prepared:
        _, fake = _logits(SHAPES[size], device)
        loss = losses.get(name)()
        contenders = (
            Contender("gan_fast", "ours", forward_backward(lambda f: loss.generator(fake=f), fake)),
            Contender("eager", "eager", forward_backward(plain, fake)),
            Contender("torch.compile", "compiled", forward_backward(compiled(plain), fake)),
        )
        return Prepared(contenders, exact(plain, fake))

    return Case(
        name=f"generator/{name}/{size}",
        group="adversarial losses",
        size=size,
        traffic=2 * 4 * size,
        contenders=("gan_fast", "eager", "torch.compile"),
        build=build,
    )


def cases() -> list[Case]:
    """The critic of every loss at every size, the usual generator, and `logit_gradients` at 64."""
    found = [_discriminator(name, size) for name in PLAIN for size in SHAPES]
    found += [_generator("non_saturating", size) for size in SHAPES]
    return [*found, _logit_gradients(64)]
