"""One file per system; `get(name)` gives its configuration."""

from __future__ import annotations

from typing import Any

from gan_fast.recipes.cgan import CGAN
from gan_fast.recipes.cyclegan import CycleGAN
from gan_fast.recipes.dcgan import DCGAN
from gan_fast.recipes.ddgan import DDGAN
from gan_fast.recipes.diffusion_gan import DiffusionGAN
from gan_fast.recipes.gan import GAN
from gan_fast.recipes.hifigan import HiFiGAN
from gan_fast.recipes.pix2pix import Pix2Pix
from gan_fast.recipes.r3gan import R3GAN
from gan_fast.recipes.stylegan2 import StyleGAN2
from gan_fast.recipes.wavegan import WaveGAN
from gan_fast.recipes.wgan import WGAN
from gan_fast.recipes.wgan_gp import WGANGP
from gan_fast.training.recipe import Recipe

_RECIPES: dict[str, type[Recipe]] = {
    recipe.name: recipe
    for recipe in (
        CGAN,
        CycleGAN,
        DCGAN,
        DDGAN,
        DiffusionGAN,
        GAN,
        HiFiGAN,
        Pix2Pix,
        R3GAN,
        StyleGAN2,
        WaveGAN,
        WGAN,
        WGANGP,
    )
}

__all__ = [
    "CGAN",
    "DCGAN",
    "DDGAN",
    "GAN",
    "R3GAN",
    "WGAN",
    "WGANGP",
    "CycleGAN",
    "DiffusionGAN",
    "HiFiGAN",
    "Pix2Pix",
    "Recipe",
    "StyleGAN2",
    "WaveGAN",
    "get",
    "names",
]


def names() -> list[str]:
    """The recipes there are."""
    return sorted(_RECIPES)


def get(name: str, **settings: Any) -> Recipe:
    """The configuration called `name`, with `settings` in place of its defaults.

    Raises ValueError for an unknown recipe, an unknown setting or a value out of range.
    """
    if name not in _RECIPES:
        raise ValueError(f"unknown recipe {name!r}: known are {', '.join(names())}")
    known = _RECIPES[name].__dataclass_fields__
    unknown = [setting for setting in settings if setting not in known]
    if unknown:
        raise ValueError(f"recipe {name} has no setting {', '.join(map(repr, unknown))}: it has {', '.join(known)}")
    return _RECIPES[name](**settings)
