"""CycleGAN: translation between two kinds of pictures without pairs.

    G: A -> B and F: B -> A minimise  E (D_B(G(a)) - 1)^2 + E (D_A(F(b)) - 1)^2
                                      + lambda E |F(G(a)) - a| + lambda E |G(F(b)) - b|
                                      + mu E |G(b) - b| + mu E |F(a) - a|
    D_B minimises                     1/2 E (D_B(b) - 1)^2 + 1/2 E D_B(G(a))^2, of D_A the same

with mean absolute differences. Critics are shown one of the last 50 generated pictures half of the time. The step is in
`cyclegan_step.py`, with R1 and augmentation for small sets, which are not the paper's; the networks are in
`gan_fast/models/cyclegan.py`. Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks", 2017, sections 3 to 5.2, with its lambda = 10, mu = lambda / 2, batch of 1, Adam at 2e-4 for half
of the run and then linearly to 0, beta1 = 0.5 (published settings).
"""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal

from gan_fast.augment.diffaugment import transforms_of
from gan_fast.recipes.cyclegan_step import CycleGANStep
from gan_fast.recipes.translation import TranslationRecipe, network_settings
from gan_fast.training.recipe import Recipe
from gan_fast.training.step import Players, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class CycleGAN(TranslationRecipe):
    """CycleGAN (Zhu et al. 2017): two kinds of pictures without pairs, translated both ways."""

    name: ClassVar[str] = "cyclegan"

    blocks: int | None = None
    """Residual blocks of the generators. Default, as in the paper: 9 from 256 pixels, 6 below."""

    downs: int | None = None
    """Halvings before the blocks. Default: the paper's 2, fewer below 32 pixels."""

    kernel: int | None = None
    """Side of the generators' first and last convolution, odd. Default: the paper's 7, 3 below 32 pixels."""

    cycle: float = 10.0
    """Lambda, the weight of the cycle loss."""

    identity: float = 5.0
    """Mu, the weight of the identity loss, which keeps colours; 0 for none."""

    norm: Literal["instance", "none"] = "instance"
    """Norm of the generators: none keeps a picture's own brightness and colours, which the paper's instance norm takes
    away."""

    critic_norm: Literal["instance", "none"] = "instance"
    """Norm of the critics: none lets them see absolute colours."""

    r1: float = 0.0
    """Weight of r1/2 E |d mean logit / d real|^2 in each critic's loss."""

    diffaugment: str = ""
    """How pictures are augmented before the critics see them, so that these do not learn a small set by heart: some of
    color, translation, cutout with commas between; empty for not at all."""

    pool: int = 50
    """Generated pictures that are kept to be shown to the critics again; 0 for none."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.diffaugment:
            transforms_of(self.diffaugment)

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "blocks", "kernel")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "downs", "cycle", "identity", "pool", "r1")

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> Recipe:
        recipe = super().for_data(shape, processes)
        assert isinstance(recipe, CycleGAN)
        height, width = shape[1:]
        shorter = min(height, width)
        downs = self.downs if self.downs is not None else 2 if shorter >= 32 else 1 if shorter >= 16 else 0
        if height % (1 << downs) or width % (1 << downs) or shorter >> downs < 4:
            raise ValueError(
                f"a generator that halves {downs} times needs sides that are multiples of {1 << downs}, from "
                f"{4 << downs}; got {height}x{width}: choose --height and --width, or fewer --downs"
            )
        blocks = self.blocks or (9 if shorter >= 256 else 6)
        kernel = self.kernel or (7 if shorter >= 32 else 3)
        return dataclasses.replace(recipe, blocks=blocks, downs=downs, kernel=kernel)

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        own = {name: getattr(self, name) for name in ("blocks", "downs", "kernel")}
        # Left out where they are the paper's: runs from before there was a choice go on.
        norms = {name: getattr(self, name) for name in ("norm", "critic_norm") if getattr(self, name) != "instance"}
        return "cyclegan", {**network_settings(self), **own, **norms}

    def step(self, players: Players) -> Step:
        assert self.channels is not None and self.height is not None and self.width is not None
        return CycleGANStep(
            players,
            (self.channels, self.height, self.width),
            cycle=self.cycle,
            identity=self.identity,
            pool=self.pool,
            r1=self.r1,
            diffaugment=self.diffaugment,
            seed=self.seed,
        )
