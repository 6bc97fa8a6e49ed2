"""One whole DCGAN step: critic and generator, forward, backward and Adam, on 64 images of 32x32.

    critic     softplus(-D(x)) + softplus(D(G(z)))        generator     softplus(-D(G(z)))

The contenders differ in the loss alone, and the compiled one in that its networks go through `torch.compile`: what a
user gains by swapping lines. Each has networks and optimisers of its own with the same initial weights; the first step
is held against the same step in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import losses
from gan_fast.bench.cases import Case, Contender, Prepared

BATCH, RESOLUTION, LATENT = 64, 32, 64
CriticLoss = Callable[[Tensor, Tensor], Tensor]
GeneratorLoss = Callable[[Tensor], Tensor]


def _networks() -> tuple[nn.Module, nn.Module]:
    from gan_fast import models

    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator, critic = models.build(
            "dcgan", resolution=RESOLUTION, channels=1, latent_dim=LATENT, base_channels=32, critic_norm="batch"
        )
    return generator.train(), critic.train()


def _step(
    critic_loss: CriticLoss,
    generator_loss: GeneratorLoss,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    wrap: Callable[[nn.Module], Callable[[Tensor], Tensor]] = lambda module: module,
) -> Callable[[], Sequence[Tensor]]:
    generator, critic = (module.to(device, dtype) for module in _networks())
    synthesise, score = wrap(generator), wrap(critic)
    adam = [torch.optim.Adam(m.parameters(), lr=2e-4, betas=(0.5, 0.999)) for m in (generator, critic)]
    numbers = torch.Generator().manual_seed(1)
    images = (torch.rand(BATCH, 1, RESOLUTION, RESOLUTION, generator=numbers) * 2 - 1).to(device, dtype)
    latents = torch.randn(BATCH, LATENT, generator=numbers).to(device, dtype)

    def run() -> Sequence[Tensor]:
        fake = synthesise(latents)
        adam[1].zero_grad()
        d = critic_loss(score(images), score(fake.detach()))
        d.backward()
        adam[1].step()
        adam[0].zero_grad()
        for p in critic.parameters():
            p.requires_grad_(False)
        g = generator_loss(score(fake))
        g.backward()
        for p in critic.parameters():
            p.requires_grad_(True)
        adam[0].step()
        last = [[p for p in m.parameters() if p.grad is not None][-1].grad for m in (generator, critic)]
        return [d.detach(), g.detach(), *(gradient for gradient in last if gradient is not None)]

    return run


def _eager_critic(r: Tensor, f: Tensor) -> Tensor:
    return F.softplus(-r).mean() + F.softplus(f).mean()


def _eager_generator(f: Tensor) -> Tensor:
    return F.softplus(-f).mean()


def _build(device: torch.device) -> Prepared:
    loss = losses.NonSaturatingLoss()
    contenders = (
        Contender(
            "gan_fast",
            "ours",
            _step(lambda r, f: loss.discriminator(real=r, fake=f), lambda f: loss.generator(fake=f), device),
        ),
        Contender("eager", "eager", _step(_eager_critic, _eager_generator, device)),
        Contender("torch.compile", "compiled", _step(_eager_critic, _eager_generator, device, wrap=torch.compile)),
    )
    truth = _step(_eager_critic, _eager_generator, device, torch.float64)()
    return Prepared(contenders, tuple(x.clone() for x in truth))


def cases() -> list[Case]:
    """One step."""
    return [
        Case(
            name=f"dcgan step/{BATCH}x1x{RESOLUTION}x{RESOLUTION}",
            group="whole step",
            size=BATCH,
            traffic=0,
            contenders=("gan_fast", "eager", "torch.compile"),
            build=_build,
            # Adam's first step divides by |gradient|: rounding of a tiny one moves its weight by up to 2 lr.
            rtol=2e-3,
        )
    ]
