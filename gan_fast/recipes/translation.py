"""What recipes that translate pictures share: two sets of them, Adam with a linear decay, PatchGAN critics.

lr(t) = lr min(1, (T - t) / (decay T))          t images of T
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import torch
from torch import nn

from gan_fast.data import PairDataset, load_pairs
from gan_fast.models.patch import default_layers
from gan_fast.recipes.networks import adam
from gan_fast.training import translation
from gan_fast.training.ema import EMA
from gan_fast.training.recipe import Budget, Preview, Recipe
from gan_fast.training.step import Step

# Rows of samples.png.
_SHOWN = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TranslationRecipe(Recipe):
    """Settings of recipes whose generators take pictures."""

    # The papers' 200 epochs of a thousand pictures.
    default_budget: ClassVar[Budget] = Budget(images=200_000)
    made_with: ClassVar[str] = "translate"
    # Whether picture i of A and picture i of B belong together.
    aligned: ClassVar[bool] = False

    data: str = "digits-to-colour"
    """A folder or zip with trainA and trainB inside (testA and testB are held out), or A and B; for pix2pix also of
    pictures with A and B side by side. Or digits-to-colour; or A alone, and B as `--data-b`."""

    data_b: str | None = None
    """Folder, zip, packed file or built-in name of the B pictures, where `data` has those of A."""

    resolution: int | None = None
    """Side of square pictures; short for height and width."""

    height: int | None = None
    """Pictures are resized to cover height x width and cropped. Default: the median of the data, at most 256 on the
    shorter side."""

    width: int | None = None
    """Of the pictures; goes with height."""

    batch: int = 1
    """Pictures of each kind per step, over all processes."""

    lr: float = 2e-4
    """Adam's learning rate for all networks."""

    beta1: float = 0.5
    """Adam's decay of the mean gradient."""

    decay: float = 0.5
    """Share of the run, its last, in which the learning rate falls linearly to 0; 0 for none. It needs the length as
    --kimg or --steps."""

    ema_kimg: float = 1.0
    """Half-life of the averaged generator, in thousand pictures; the papers keep none."""

    base_channels: int = 64
    """Channels of the generator at full size."""

    critic_channels: int = 64
    """Channels of the critic's first layer."""

    critic_layers: int | None = None
    """Halvings of the critic: 3 for patches of 70x70 pixels (the papers), 2 for 34x34, 1 for 16x16, 0 for single
    pixels. Default: 3, fewer below 32 pixels."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.decay <= 1.0:
            raise ValueError(f"decay must be in [0, 1], got {self.decay!r}")
        if self.updates == "simultaneous":
            raise ValueError(f"{self.name} has alternating updates only: use --updates alternating")
        if (self.height is None) != (self.width is None):
            raise ValueError(f"give height and width, or neither; got {self.height} and {self.width}")
        if self.resolution is not None and self.height is not None and (self.height, self.width) != self._square():
            raise ValueError(f"resolution is {self.resolution} and height x width {self.height}x{self.width}: give one")
        if self.decay and self.length() == math.inf:
            raise ValueError(
                "the learning rate falls to 0 by the end of the run, which --seconds alone does not tell: give --kimg "
                "or --steps too, or --decay 0"
            )

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        return (*super().decay_fields(), "beta1")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        sizes = ("resolution", "height", "width", "base_channels", "critic_channels")
        return (*super().positive_fields(), *sizes, "lr")

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        return (*super().non_negative_fields(), "critic_layers")

    def _square(self) -> tuple[int | None, int | None]:
        return self.resolution, self.resolution

    def length(self) -> float:
        """Pictures of each kind in the whole run, as far as the budget tells."""
        return min(self.budget.images, self.budget.steps * self.batch)

    def load_data(self) -> PairDataset:
        height, width = (self.height, self.width) if self.height is not None else self._square()
        return load_pairs(
            self.data, self.data_b, height=height, width=width, channels=self.channels, aligned=self.aligned
        )

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> Recipe:
        if len(shape) != 3 or shape[0] not in (2, 6):
            raise ValueError(
                f"{self.name} translates between two kinds of pictures, [2 C, H, W] with C 1 or 3, and the data given "
                f"has {list(shape)}: give a gan_fast.data.PairDataset"
            )
        has: dict[str, Any] = {"channels": shape[0] // 2, "height": shape[1], "width": shape[2]}
        for name, value in has.items():
            asked = getattr(self, name)
            if asked is not None and asked != value:
                raise ValueError(f"recipe asks for {name} {asked} but the data given has {value}")
        if self.resolution is not None and self._square() != shape[1:]:
            raise ValueError(f"recipe asks for resolution {self.resolution} but the data given has {list(shape)}")
        layers = self.critic_layers if self.critic_layers is not None else default_layers(*shape[1:])
        if min(shape[1:]) >> layers < 3:
            raise ValueError(f"pictures of {shape[1]}x{shape[2]} are too small for a critic of {layers} layers")
        return dataclasses.replace(self, **has, critic_layers=layers)

    def latent_size(self, shape: tuple[int, ...]) -> int:
        return 0

    def generator_period(self) -> int:
        return 1

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        betas = (self.beta1, 0.999)
        return adam(generator, self.lr, betas), adam(critic, self.lr, betas)

    def lr_at(self, images: int) -> float:
        """After `images` pictures."""
        if not self.decay:
            return self.lr
        length = self.length()
        return self.lr * max(0.0, min(1.0, (length - images) / (self.decay * length)))

    def follow(
        self,
        images: int,
        step: Step,
        optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
        average: EMA,
    ) -> None:
        now = self.lr_at(images)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = now

    def directions(self) -> tuple[translation.Direction, ...]:
        """Which the generator translates."""
        return translation.DIRECTIONS

    def preview(self, average: nn.Module, data: Any, shape: tuple[int, ...]) -> Preview:
        """Rows of input, output, and what the other generator makes of that, or the right output where it is known."""
        if not isinstance(data, PairDataset):
            return Preview(torch.zeros(0, *shape))
        images, in_row = translation.table(average, data.held_out or data, self.directions(), _SHOWN)
        return Preview(images, in_row=in_row)


def network_settings(recipe: TranslationRecipe) -> dict[str, Any]:
    """Of both papers' networks."""
    names = ("channels", "base_channels", "critic_channels", "critic_layers")
    return {name: getattr(recipe, name) for name in names}
