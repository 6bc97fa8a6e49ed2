"""Steps in float64 by gradient descent, in which a change of weights is a gradient: what tests of steps share."""

from __future__ import annotations

import torch

from gan_fast import losses, models
from gan_fast.training import AdversarialStep, Latents
from gan_fast.training.distributed import World
from gan_fast.training.machine import Machine
from gan_fast.training.techniques import Techniques

CPU = torch.device("cpu")
MACHINE = Machine(CPU, "fp32", False)
LR = 0.05


class FixedLatents(Latents):
    """float64 latents that are given out in turn."""

    def __init__(self, batches):
        super().__init__(4, 0, CPU, World())
        self.batches = list(batches)

    def draw(self, count):
        return self.batches.pop(0)


def networks(shape=(2,), dtype=torch.float64, **seen):
    return tuple(
        net.to(dtype) for net in models.build("mlp", shape=shape, latent_dim=4, width=8, depth=2, seed=3, **seen)
    )


def batch(shape=(2,), count=8, seed=1):
    """Real samples and two batches of latents."""
    stream = torch.Generator().manual_seed(seed)
    real = torch.rand(count, *shape, generator=stream, dtype=torch.float64) * 2 - 1
    return real, [torch.randn(count, 4, generator=stream, dtype=torch.float64) for _ in range(2)]


def make_step(generator, critic, latents, loss=None, **settings):
    """Gradient descent, so that a change of weights is a gradient."""
    optimizers = tuple(torch.optim.SGD(network.parameters(), LR) for network in (generator, critic))
    names = {"techniques": Techniques(**settings.pop("techniques", {})), **settings}
    loss = loss or losses.NonSaturatingLoss()
    shared = {"generator_period": 1, "machine": MACHINE, "world": World(), "seed": 5}
    return AdversarialStep(generator, critic, loss, optimizers, FixedLatents(latents), **{**shared, **names})


def check_descent(network, before, value):
    """`network` is `before` after one step down the gradient of `value`, a function of `before`'s weights."""
    wanted = torch.autograd.grad(value, list(before.parameters()), allow_unused=True)
    for p, q, g in zip(network.parameters(), before.parameters(), wanted, strict=True):
        torch.testing.assert_close(p, q - LR * (0 if g is None else g), rtol=1e-9, atol=1e-12)


def stream(offset, seed=5):
    return torch.Generator().manual_seed(seed + offset)
