"""A training step of a StyleGAN2-ADA-style checkout under `compat.nvlabs.install()`: generator, path length, critic
with R1, augmentation; beside the same step on the plain PyTorch references, which is what a checkout falls back to
where its plugins cannot be built. The checkout is the stand-in of `tests/compat`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from gan_fast import reference_mode
from gan_fast.bench import Case
from gan_fast.bench.cases import Contender, Prepared
from gan_fast.compat import nvlabs

CHECKOUT = Path(__file__).resolve().parents[1] / "tests" / "compat" / "checkouts" / "stylegan"
CHANNELS, SIDE, BATCH = 64, 64, 8


def _build(channels: int, side: int, device: torch.device) -> Prepared:
    nvlabs.install()
    sys.path.insert(0, str(CHECKOUT))
    from training import augment, loss, networks

    torch.manual_seed(0)
    pair = [networks.Generator(64, 64, channels, side).to(device), networks.Discriminator(channels, side).to(device)]
    pipe = augment.AugmentPipe().to(device)
    z, real, noise = (torch.randn(BATCH, *shape, device=device) for shape in ((64,), (3, side, side), (3, side, side)))

    def run() -> Sequence[Tensor]:
        dtype = next(pair[0].parameters()).dtype
        step = loss.Loss(*pair, pipe)
        step.pl_mean = step.pl_mean.to(device, dtype)
        step.train_generator(z.to(dtype))
        step.path_length(z.to(dtype), noise.to(dtype))
        gradients = [pair[0].conv0.weight.grad, pair[0].mapping.weight.grad]
        pair[1].zero_grad(set_to_none=True)
        step.train_discriminator(real.to(dtype), z.to(dtype))
        gradients += [pair[1].conv0.weight.grad, pair[1].fromrgb.weight.grad]
        for network in pair:
            network.zero_grad(set_to_none=True)
        return gradients

    def on_references() -> Sequence[Tensor]:
        with reference_mode():
            return run()

    for module in (*pair, pipe):
        module.double()
    truth = tuple(on_references())
    for module in (*pair, pipe):
        module.float()
    return Prepared((Contender("gan_fast", "ours", run), Contender("reference", "reference", on_references)), truth)


def _case(channels: int, side: int) -> Case:
    return Case(
        name=f"checkout step/{BATCH}x{channels}x{side}x{side}",
        group="checkout",
        size=BATCH,
        traffic=0,
        contenders=("gan_fast", "reference"),
        build=lambda device: _build(channels, side, device),
        # A kink of the leaky ReLU that rounding crosses moves a gradient by more than rounding does.
        rtol=2e-2,
    )


CASES = [_case(CHANNELS, SIDE)]
SMALL_CASES = [_case(4, 8)]


def test_checkout_step(timed, case, contender):
    timed(case, contender)
