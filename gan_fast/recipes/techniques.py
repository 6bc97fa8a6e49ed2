"""The techniques of `gan_fast.training.techniques` as fields of a recipe, each off by default.

They belong to recipes whose step is `AdversarialStep`; any may be used with any other, but for what is refused below.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import torch

from gan_fast.augment.diffaugment import transforms_of
from gan_fast.training.ema import EMA
from gan_fast.training.recipe import Recipe
from gan_fast.training.step import AdversarialStep, Step
from gan_fast.training.techniques import Techniques


@dataclasses.dataclass(frozen=True, kw_only=True)
class TechniqueRecipe(Recipe):
    """Fields of the techniques."""

    feature_matching: float = 0.0
    """Weight of |E f(x) - E f(G(z))|^2 in the generator's loss, f what enters the critic's last layer (Salimans et al.
    2016). Helps where the generator chases the critic in circles: means are a steadier aim than one logit."""

    adversarial_weight: float = 1.0
    """Weight of the adversarial loss of the generator; 0 with feature_matching is Salimans et al.'s own."""

    minibatch_stddev: int = 0
    """The critic sees how samples differ, within groups of so many, before its last layer (Karras et al. 2018); 4 is
    usual, 0 none. Helps against samples that resemble each other, at next to no cost."""

    minibatch_discrimination: int = 0
    """Kernels by which the critic sees how near each sample is to the others of its batch (Salimans et al. 2016); 0 for
    none. Helps against collapse to one picture; costs grow with the square of the batch."""

    instance_noise: float = 0.0
    """Standard deviation, at first, of noise on all that the critic sees (Sonderby et al. 2017); it falls linearly to
    0. Helps where the critic wins at once because real and generated samples do not overlap."""

    instance_noise_kimg: float = 200.0
    """Thousand images until the instance noise is gone."""

    unrolled_steps: int = 0
    """The generator plays against the critic as it will be so many of its steps ahead (Metz et al. 2017), with the
    exact gradient through them. Helps small networks that hop from mode to mode; a high lr_d can make it collapse.
    Each step costs a critic update or more."""

    packing: int = 1
    """The critic scores so many samples together (PacGAN, Lin et al. 2018). Helps against missing modes: a lack of
    variety shows in a pack. The critic sees as many images in fewer packs."""

    lecam: float = 0.0
    """Weight of the distance of the critic's logits to the moving averages of the other side's (Tseng et al. 2021).
    Helps with little data, where the critic overfits; 0.01 to 0.3 are usual."""

    lecam_decay: float = 0.99
    """Of those averages, for each critic step."""

    bcr: float = 0.0
    """Weight of the consistency of the critic between an image and its augmented copy, real and generated (bCR, Zhao
    et al. 2020, who use 10). Helps with little data; images only."""

    bcr_policy: str = "translation"
    """The augmentations: some of color, translation, cutout with commas between them."""

    zcr_critic: float = 0.0
    """Weight of the consistency of the critic between samples of near latents (zCR, Zhao et al. 2020, who use 5)."""

    zcr_generator: float = 0.0
    """Weight of the distance between samples of near latents, which the generator is to raise (zCR; its authors use
    0.5). Helps against a generator that ignores its latents."""

    zcr_noise: float = 0.03
    """Standard deviation of the difference between near latents."""

    top_k: float = 1.0
    """Share of the batch that the generator learns from in the end: the samples that the critic likes best (Sinha et
    al. 2020, who use 0.75 or 0.5); 1 for all. Helps late in training, when bad samples teach little."""

    top_k_kimg: float = 500.0
    """Thousand images until that share is reached, geometrically from 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.top_k <= 1:
            raise ValueError(f"top_k must be a share of the batch in (0, 1], got {self.top_k!r}")
        if not self.adversarial_weight and not self.feature_matching:
            raise ValueError("adversarial_weight is 0 and feature_matching too: the generator would have no loss")
        if self.minibatch_discrimination and self.penalties().interpolated:
            raise ValueError(
                "minibatch_discrimination compares all samples of a batch, and the gradient penalty is each one's own: "
                "use minibatch_stddev or packing"
            )
        transforms_of(self.bcr_policy)
        if self.techniques() != Techniques():
            self.techniques().check(self.updates, self.penalties().interpolated > 0, self.loss_function())

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        return (*super().decay_fields(), "lecam_decay")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (*super().positive_fields(), "instance_noise_kimg", "packing", "zcr_noise", "top_k_kimg")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        weights = ("feature_matching", "adversarial_weight", "instance_noise", "lecam", "bcr", "zcr_critic")
        counts = ("zcr_generator", "minibatch_stddev", "minibatch_discrimination", "unrolled_steps")
        return (*super().non_negative_fields(), *weights, *counts)

    def techniques(self) -> Techniques:
        return Techniques(
            adversarial=self.adversarial_weight,
            feature_matching=self.feature_matching,
            instance_noise=self.instance_noise,
            instance_noise_images=1000 * self.instance_noise_kimg,
            unrolled_steps=self.unrolled_steps,
            packing=self.packing,
            lecam=self.lecam,
            lecam_decay=self.lecam_decay,
            bcr=self.bcr,
            bcr_policy=self.bcr_policy,
            zcr_critic=self.zcr_critic,
            zcr_generator=self.zcr_generator,
            zcr_noise=self.zcr_noise,
            top_k=self.top_k,
            top_k_images=1000 * self.top_k_kimg,
        )

    def critic_sees(self) -> dict[str, Any]:
        """What of the techniques is in the critic's networks, for `models.build`; nothing where they are off."""
        used = {"packing": self.packing if self.packing > 1 else 0}
        used |= {name: getattr(self, name) for name in ("minibatch_stddev", "minibatch_discrimination")}
        return {name: value for name, value in used.items() if value}

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> Recipe:
        if self.packing > 1 and self.batch % (self.packing * processes):
            raise ValueError(
                f"packing needs a batch that is a multiple of {self.packing} samples for each of {processes} "
                f"process(es), got a batch of {self.batch}"
            )
        if self.bcr and len(shape) == 1:
            raise ValueError("bcr compares images with augmented copies, and the data holds points: use zcr_critic")
        return super().for_data(shape, processes)

    def follow(
        self,
        images: int,
        step: Step,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        average: EMA,
    ) -> None:
        if isinstance(step, AdversarialStep):
            step.techniques.follow(images)
        elif self.techniques() != Techniques() or self.critic_sees():
            raise ValueError(f"recipe {self.name} has a step of its own, {type(step).__name__}, without techniques")
