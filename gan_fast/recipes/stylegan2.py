"""StyleGAN2: a style-based generator against a residual critic, with lazy R1 and path length, and ADA.

    G minimises  softplus(-D(T(G(z))))                           and now and then  w E (|J^T y| - a)^2
    D minimises  softplus(-D(T(x))) + softplus(D(T(G(z))))       and now and then  gamma/2 E |d D(T(x)) / d x|^2

The step is in `stylegan2_step.py`, the networks in `gan_fast/models/stylegan2`. A configuration is a row of settings
below; every flag that is given replaces the row's. Sources: Karras et al. 2020, "Analyzing and Improving the Image
Quality of StyleGAN" (StyleGAN2); Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data"
(StyleGAN2-ADA), appendix D and its published settings.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import nn

from gan_fast.augment import ADA, AdaptiveProbability, DiffAugment
from gan_fast.losses import AdversarialLoss, NonSaturatingLoss
from gan_fast.models.stylegan2 import weights
from gan_fast.models.stylegan2.layers import Precision
from gan_fast.recipes.stylegan2_step import Regularisation, StyleGAN2Step
from gan_fast.training.machine import Machine
from gan_fast.training.recipe import Budget, Recipe
from gan_fast.training.step import Players, Step

Config = Literal["auto", "stylegan2", "paper256", "paper512", "paper1024", "cifar", "tiny"]

# What all rows share unless they say otherwise.
_SHARED: dict[str, Any] = {
    "latent_dim": 512,
    "w_dim": 512,
    "mapping_layers": 8,
    "channel_base": 32768,
    "channel_max": 512,
    "critic_architecture": "resnet",
    "r1_every": 16,
    "path_length": 2.0,
    "path_length_every": 4,
    "style_mixing": 0.9,
    "ema_ramp": 0.0,
    "augment": "ada",
    "ada_kimg": 500.0,
    "half_resolutions": 4,
    "kimg": 25_000.0,
}

# StyleGAN2-ADA's published rows. Their learning rates and gammas go with batch and size; `auto` is in `_auto`.
_ROWS: dict[str, dict[str, Any]] = {
    "auto": {"mapping_layers": 2, "ema_ramp": 0.05},
    # Configuration F of the StyleGAN2 paper, 1024x1024.
    "stylegan2": {"batch": 32, "mbstd_group": 4, "lr": 0.002, "r1": 10.0, "ema_kimg": 10.0},
    "paper256": {"batch": 64, "mbstd_group": 8, "lr": 0.0025, "r1": 1.0, "ema_kimg": 20.0, "channel_base": 16384},
    "paper512": {"batch": 64, "mbstd_group": 8, "lr": 0.0025, "r1": 0.5, "ema_kimg": 20.0},
    "paper1024": {"batch": 32, "mbstd_group": 4, "lr": 0.002, "r1": 2.0, "ema_kimg": 10.0},
    # At 32x32 style mixing and path length cost quality, and so do residual paths in the critic.
    "cifar": {
        "batch": 64,
        "mbstd_group": 32,
        "lr": 0.0025,
        "r1": 0.01,
        "ema_kimg": 500.0,
        "ema_ramp": 0.05,
        "mapping_layers": 2,
        "critic_architecture": "orig",
        "path_length": 0.0,
        "style_mixing": 0.0,
        "kimg": 100_000.0,
    },
    # Two CPU cores, half an hour, a few thousand pictures.
    "tiny": {
        # Steps are what half an hour is short of, so batches and networks are small. On emoji portraits half an hour of
        # two cores ends at 0.85 of the distance of the pixels' Gaussian; with four times the channels and batches of 16
        # it ended at 1.19.
        "batch": 8,
        "mbstd_group": 4,
        "lr": 0.003,
        # With 0.1 the critic ran away (mean logits 3 and -2.3) and all samples took one shape by 11 kimg.
        "r1": 1.0,
        "ema_kimg": 5.0,
        "ema_ramp": 0.05,
        "latent_dim": 128,
        "w_dim": 128,
        "mapping_layers": 2,
        "channel_base": 512,
        "channel_max": 128,
        # A second pass through the generator and its double backward, for smoothness that half an hour does not reach.
        "path_length": 0.0,
        "style_mixing": 0.5,
        "ada_kimg": 200.0,
        "kimg": None,
    },
}
TINY_SECONDS = 1800.0
TINY_SIDE = 64


def _auto(side: int, processes: int) -> dict[str, Any]:
    """StyleGAN2-ADA's heuristics for any size and number of processes."""
    batch = max(min(processes * min(4096 // side, 32), 64), processes)
    return {
        "batch": batch,
        "mbstd_group": min(batch // processes, 4),
        "channel_base": 32768 if side >= 512 else 16384,
        "lr": 0.002 if side >= 1024 else 0.0025,
        "r1": 0.0002 * side**2 / batch,
        "ema_kimg": batch * 10 / 32,
    }


@dataclasses.dataclass(frozen=True, kw_only=True)
class StyleGAN2(Recipe):
    """StyleGAN2 with adaptive augmentation (Karras et al. 2020). Flags without a default take their configuration's."""

    name: ClassVar[str] = "stylegan2"

    config: Config = "auto"
    """Row of settings: auto goes by image size and processes; stylegan2, paper256, paper512, paper1024 and cifar are
    the papers'; tiny is for pictures up to 64 pixels on two CPU cores."""

    # These three are plain numbers in other recipes; `for_data` fills them in before anything reads them.
    batch: int | None = None  # type: ignore[assignment]
    """Samples per step, over all processes."""

    ema_kimg: float | None = None  # type: ignore[assignment]
    """Half-life of the averaged generator, in thousand images."""

    ema_ramp: float | None = None  # type: ignore[assignment]
    """The half-life is at most this share of the images seen so far; 0 for no such limit."""

    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"  # type: ignore[assignment]
    """bf16 and fp16 (CUDA only) run the highest resolutions in half precision; auto takes bf16 where the machine
    multiplies it in hardware."""

    half_resolutions: int | None = None
    """How many of the highest resolutions run in half precision, where there is any."""

    conv_clamp: float = 256.0
    """Layers are clamped to [-clamp, clamp], which half precision needs; 0 for no clamp."""

    latent_dim: int | None = None
    """Length of a latent vector z."""

    w_dim: int | None = None
    """Length of a style vector w."""

    mapping_layers: int | None = None
    """Layers of the generator's mapping network, z to w. A conditional critic has 8, with config tiny as many."""

    channel_base: int | None = None
    """Feature maps at a side R are channel_base / R, at most channel_max."""

    channel_max: int | None = None
    """Most feature maps of any layer."""

    generator_architecture: Literal["orig", "skip", "resnet"] = "skip"
    """How the generator's resolutions are joined: skip adds up images, resnet features, orig neither."""

    critic_architecture: Literal["orig", "skip", "resnet"] | None = None
    """The same for the critic."""

    mbstd_group: int | None = None
    """Samples over which the critic's minibatch deviation is taken; 0 for none, so that samples do not mix."""

    freeze_layers: int = 0
    """So many of the critic's layers, from the highest resolution on, are not trained, for transfer (Mo et al.
    2020)."""

    lr_g: float | None = None
    """Adam's learning rate for the generator, before the correction for lazy penalties."""

    lr_d: float | None = None
    """Adam's learning rate for the critic, likewise."""

    beta1: float = 0.0
    """Adam's decay of the mean gradient."""

    beta2: float = 0.99
    """Adam's decay of the squared gradient."""

    r1: float | None = None
    """Gamma, the weight of r1/2 E |d logit / d real|^2."""

    r1_every: int | None = None
    """Steps between two updates by R1, which is weighted by as much."""

    path_length: float | None = None
    """Weight of the path length penalty."""

    path_length_every: int | None = None
    """Steps between two updates by path length, which is weighted by as much."""

    path_length_decay: float = 0.01
    """How far the running mean of path lengths moves at each of them."""

    path_length_shrink: int = 2
    """The penalty is taken on one in so many samples of the batch."""

    style_mixing: float | None = None
    """Probability that a sample takes the styles of a second latent from a random layer on."""

    augment: Literal["none", "diffaugment", "ada"] | None = None
    """What the critic sees its images through: DiffAugment (Zhao et al. 2020), ADA, or nothing."""

    augment_policy: str | None = None
    """Transforms. ADA: blit, geom, color, filter, noise, cutout, bg, bgc (default), bgcf, bgcfn, bgcfnc, or names of
    single ones with commas between; DiffAugment: some of color,translation,cutout (default: all)."""

    augment_p: float | None = None
    """ADA's probability of each transform, fixed. Default: it starts at 0 and follows the critic."""

    ada_target: float = 0.6
    """What E sign(real logit) is steered to: the lower, the stronger the augmentation."""

    ada_kimg: float | None = None
    """Thousand images in which p can go from 0 to 1. Default: 500, in tiny 200, with --init-from 100."""

    ada_every: int = 4
    """Steps between two moves of p."""

    conditional: bool = False
    """Train on the classes of the data: the folders the images are in."""

    init_from: str | None = None
    """Start from these weights: a folder with G.safetensors, D.safetensors and G_ema.safetensors (of which one is
    enough), or one such file of a generator."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field in ("style_mixing", "augment_p", "ada_target", "path_length_decay"):
            value = getattr(self, field)
            if value is not None and not 0.0 <= value <= 1.0:
                raise ValueError(f"{field} must be in [0, 1], got {value!r}")
        if self.updates == "simultaneous":
            raise ValueError("stylegan2 has updates of its own for each loss and penalty: use --updates alternating")
        augment = self.augment or "ada"
        if self.augment_p is not None and augment != "ada":
            raise ValueError(f"augment_p is ADA's, and augment is {augment!r}: use --augment ada or leave it out")
        if self.augment_policy is not None and augment == "none":
            raise ValueError("augment_policy is given and augment is 'none': use --augment ada or diffaugment")
        self._augmentation((0, 1))

    @classmethod
    def decay_fields(cls) -> tuple[str, ...]:
        return (*super().decay_fields(), "beta1", "beta2")

    @classmethod
    def positive_fields(cls) -> tuple[str, ...]:
        return (
            *super().positive_fields(),
            *("latent_dim", "w_dim", "mapping_layers", "channel_base", "channel_max", "lr_g", "lr_d"),
            *("r1_every", "path_length_every", "path_length_decay", "path_length_shrink", "ada_kimg", "ada_every"),
        )

    @classmethod
    def non_negative_fields(cls) -> tuple[str, ...]:
        own = ("r1", "path_length", "conv_clamp", "mbstd_group", "half_resolutions", "freeze_layers")
        return (*super().non_negative_fields(), *own)

    def generator_period(self) -> int:
        return 1

    def loss_function(self) -> AdversarialLoss:
        return NonSaturatingLoss()

    def wants_labels(self) -> bool:
        return self.conditional

    @property
    def budget(self) -> Budget:
        if self.steps is not None or self.kimg is not None or self.seconds is not None:
            return super().budget
        kimg = {**_SHARED, **_ROWS[self.config]}["kimg"]
        return Budget(seconds=TINY_SECONDS) if kimg is None else Budget(images=kimg * 1000)

    def for_data(self, shape: tuple[int, ...], processes: int = 1) -> StyleGAN2:
        if len(shape) != 3:
            raise ValueError(f"stylegan2 is for images and the data holds points {list(shape)}: use --recipe dcgan")
        if self.init_from is not None and not Path(self.init_from).expanduser().exists():
            raise ValueError(f"init_from is {self.init_from}, which does not exist: give a folder of converted weights")
        side = shape[1]
        if self.config == "tiny" and side > TINY_SIDE:
            raise ValueError(f"config tiny is for up to {TINY_SIDE} pixels, got {side}: use auto, or --resolution 64")
        row = {**_SHARED, **(_auto(side, processes) if self.config == "auto" else {}), **_ROWS[self.config]}
        row["lr_g"] = row["lr_d"] = row.pop("lr")
        if self.init_from is not None:
            row.update(ada_kimg=100.0, ema_ramp=0.0)
        del row["kimg"]
        filled = dataclasses.replace(self, **{k: v for k, v in row.items() if getattr(self, k) is None})
        base = super(StyleGAN2, filled).for_data(shape, processes)
        assert isinstance(base, StyleGAN2)
        return base

    def for_resume(self) -> StyleGAN2:
        return dataclasses.replace(self, init_from=None)

    def latent_size(self, shape: tuple[int, ...]) -> int:
        assert self.latent_dim is not None
        return self.latent_dim

    def networks(self, shape: tuple[int, ...], classes: int = 0) -> tuple[str, dict[str, Any]]:
        group = self.mbstd_group
        return "stylegan2", {
            "resolution": shape[1],
            "channels": shape[0],
            "latent_dim": self.latent_dim,
            "w_dim": self.w_dim,
            "classes": classes,
            "mapping_layers": self.mapping_layers,
            # StyleGAN2-ADA's rows are about the generator: its critics map classes through 8 layers.
            "critic_mapping_layers": self.mapping_layers if self.config == "tiny" else 8,
            "channel_base": self.channel_base,
            "channel_max": self.channel_max,
            "generator_architecture": self.generator_architecture,
            "critic_architecture": self.critic_architecture,
            "num_fp16_res": self.half_resolutions,
            "conv_clamp": self.conv_clamp or None,
            "channels_last": self.channels_last,
            "mbstd_group_size": group or None,
            "mbstd_channels": 1 if group else 0,
            "freeze_layers": self.freeze_layers,
        }

    def prepare(self, generator: nn.Module, critic: nn.Module, average: nn.Module, machine: Machine) -> None:
        """Half precision as the machine has it, and the weights to start from."""
        half = None if machine.precision == "fp32" else machine.precision
        for network in (generator, critic, average):
            for block in network.modules():
                if isinstance(block, Precision) and block.low_precision is not None:
                    block.low_precision = half
        if self.init_from is not None:
            self._load(generator, critic, average)

    def optimizers(
        self, generator: nn.Module, critic: nn.Module
    ) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
        assert self.lr_g is not None and self.lr_d is not None
        every_g = self.path_length_every if self.path_length else None
        every_d = self.r1_every if self.r1 else None
        return self._adam(generator, self.lr_g, every_g), self._adam(critic, self.lr_d, every_d)

    def step(self, players: Players) -> Step:
        device, world = players.machine.device, players.world
        assert self.r1 is not None and self.r1_every is not None and self.style_mixing is not None
        assert self.path_length is not None and self.path_length_every is not None
        augment = self._augmentation((world.rank, world.size))
        adaptive = None
        if augment is not None:
            augment = augment.to(device)
        if isinstance(augment, ADA) and self.augment_p is None:
            assert self.ada_kimg is not None
            adaptive = AdaptiveProbability(
                augment.p, target=self.ada_target, kimg=self.ada_kimg, interval=self.ada_every
            )
        return StyleGAN2Step(
            players,
            Regularisation(
                self.r1,
                self.r1_every,
                self.path_length,
                self.path_length_every,
                self.path_length_decay,
                self.path_length_shrink,
            ),
            style_mixing=self.style_mixing,
            augment=augment,
            adaptive=adaptive,
            seed=self.seed,
        )

    def _augmentation(self, share: tuple[int, int]) -> ADA | DiffAugment | None:
        kind = self.augment or "ada"
        if kind == "none":
            return None
        if kind == "diffaugment":
            return DiffAugment(self.augment_policy or "color,translation,cutout", share)
        return ADA(self.augment_policy or "bgc", self.augment_p or 0.0, share)

    def _adam(self, network: nn.Module, lr: float, lazy_every: int | None) -> torch.optim.Optimizer:
        """Adam for k + 1 updates where there would be k: c = k/(k+1), lr c, beta^c (StyleGAN2, appendix B)."""
        c = 1.0 if lazy_every is None else lazy_every / (lazy_every + 1)
        parameters = [p for p in network.parameters() if p.requires_grad]
        on_cuda = parameters[0].device.type == "cuda"
        betas = (self.beta1**c, self.beta2**c)
        return torch.optim.Adam(parameters, lr * c, betas, eps=1e-8, fused=True, capturable=on_cuda)

    def _load(self, generator: nn.Module, critic: nn.Module, average: nn.Module) -> None:
        assert self.init_from is not None
        source = Path(self.init_from).expanduser()
        saved: dict[str, Any] = weights.load(source) if source.is_dir() else {"G_ema": weights.load_generator(source)}
        for network, names in ((generator, ("G", "G_ema")), (average, ("G_ema", "G")), (critic, ("D",))):
            found = next((saved[name] for name in names if name in saved), None)
            if found is None:
                continue
            theirs, ours = found.state_dict(), network.state_dict()
            odd = [
                k for k in {**ours, **theirs} if k not in ours or k not in theirs or ours[k].shape != theirs[k].shape
            ]
            if odd:
                shapes = [list(s[odd[0]].shape) if odd[0] in s else "none" for s in (theirs, ours)]
                raise ValueError(
                    f"the weights in {source} do not fit this run's networks: {odd[0]} is {shapes[0]} there and "
                    f"{shapes[1]} here; they were made with {found.init_kwargs}: use the same resolution, channels, "
                    "classes and sizes"
                )
            network.load_state_dict(theirs)
