"""Networks by name: `build(name, **config) -> (generator, critic)`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from gan_fast.models import cgan, cyclegan, dcgan, ddgan, hifigan, mlp, pix2pix, r3gan, stylegan2, timesteps, wavegan

_BUILDERS: dict[str, Callable[..., tuple[nn.Module, nn.Module]]] = {
    "cgan": cgan.build,
    "cyclegan": cyclegan.build,
    "dcgan": dcgan.build,
    "ddgan": ddgan.build,
    "hifigan": hifigan.build,
    "mlp": mlp.build,
    "pix2pix": pix2pix.build,
    "r3gan": r3gan.build,
    "stylegan2": stylegan2.build,
    "timesteps": timesteps.build,
    "wavegan": wavegan.build,
}

__all__ = ["build", "classes_of", "names"]


def names() -> list[str]:
    """The names `build` knows."""
    return sorted(_BUILDERS)


def build(name: str, *, seed: int | None = None, **config: Any) -> tuple[nn.Module, nn.Module]:
    """The generator and the critic called `name`, on the CPU in fp32.

    With a `seed` the initial weights depend on it alone and torch's global generator is left as it was;
    without one they come from the global generator, as in any torch module. Raises ValueError for an
    unknown name or a configuration the networks cannot have.
    """
    if name not in _BUILDERS:
        raise ValueError(f"unknown model {name!r}: known are {', '.join(names())}")
    if seed is None:
        return _BUILDERS[name](**config)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return _BUILDERS[name](**config)


def classes_of(generator: nn.Module) -> int:
    """How many classes a generator is told of, called as G(z, one-hot); 0 for G(z)."""
    return int(getattr(generator, "c_dim", 0))
