"""Techniques that steady the adversarial game, each off by default; `AdversarialStep` calls them at named points.

    show          what the critic is shown of samples x     pack_m(x + s(t) n),  n ~ N(0, I),  s falls linearly to 0
    LeCam         in the critic's loss                      + w (E (D(x) - a_F)^2 + E (D(G(z)) - a_R)^2)
    consistency   in the critic's loss (bCR, zCR)           + w (E (D(x) - D(T(x)))^2 + E (D(G(z)) - D(T(G(z))))^2)
                                                            + w_D E (D(G(z)) - D(G(z + e)))^2,  e ~ N(0, s^2 I)
    diversity     in the generator's loss (zCR)             - w_G E |G(z) - G(z + e)|^2
    top-k         the generator learns from the k samples that the critic likes best, k from the batch's N to v N
    features      in the generator's loss                   + w |E f(x) - E f(G(z))|^2,  f what enters D's last layer

a_R and a_F are moving averages of the mean logits of real and generated samples, without the bias of their start at 0.
Random numbers are drawn by the sample's place in the whole batch, and what couples samples is reduced over processes.

Sources: feature matching Salimans et al. 2016, "Improved Techniques for Training GANs", section 3.1; instance noise
Sonderby et al. 2017, "Amortised MAP Inference for Image Super-resolution", and Arjovsky and Bottou 2017, "Towards
Principled Methods for Training GANs"; packing Lin et al. 2018, "PacGAN"; LeCam Tseng et al. 2021, "Regularizing
Generative Adversarial Networks under Limited Data", equation 4; bCR and zCR Zhao et al. 2020, "Improved Consistency
Regularization for GANs", algorithms 1 and 2; top-k Sinha et al. 2020, "Top-k Training of GANs". Unrolling is in
`gan_fast.training.unroll`, what the critic sees of its batch in `gan_fast.models.batch`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.augment import DiffAugment
from gan_fast.augment.draws import Draws
from gan_fast.losses import AdversarialLoss, CriticStats, feature_matching
from gan_fast.training import distributed
from gan_fast.training.distributed import World, mean_with_gradient
from gan_fast.training.machine import Machine


class Techniques(NamedTuple):
    """Settings. A weight of 0 is none, as are a packing and a top_k of 1; *_images is when a schedule has ended."""

    adversarial: float = 1.0
    feature_matching: float = 0.0
    instance_noise: float = 0.0
    instance_noise_images: float = 1.0
    unrolled_steps: int = 0
    packing: int = 1
    lecam: float = 0.0
    lecam_decay: float = 0.99
    bcr: float = 0.0
    bcr_policy: str = "translation"
    zcr_critic: float = 0.0
    zcr_generator: float = 0.0
    zcr_noise: float = 0.03
    top_k: float = 1.0
    top_k_images: float = 1.0

    def check(self, updates: str, interpolated: bool, loss: AdversarialLoss) -> None:
        """Raises ValueError for what cannot work together; `interpolated`: with WGAN-GP's penalty."""
        generators = {
            "feature_matching": self.feature_matching,
            "adversarial_weight": self.adversarial != 1,
            "unrolled_steps": self.unrolled_steps,
            "zcr_generator": self.zcr_generator,
            "top_k": self.top_k != 1,
        }
        alone = next((name for name, value in generators.items() if value), "")
        if updates == "simultaneous" and alone:
            raise ValueError(
                f"{alone} changes the generator's own pass through the critic, and simultaneous updates have none: use "
                "--updates alternating"
            )
        if self.unrolled_steps and interpolated:
            raise ValueError(
                "unrolled_steps do not follow the penalty between real and generated samples: use r1 and r2, or a "
                "gp_weight of 0"
            )
        if self.unrolled_steps and (self.bcr or self.zcr_critic):
            raise ValueError("unrolled_steps do not follow bcr and zcr_critic: use one or the other")
        if self.top_k != 1 and loss.name == "relativistic_average":
            raise ValueError(
                "top_k chooses samples, and relativistic_average compares each with the whole batch: use relativistic"
            )


def wide(x: Tensor) -> Tensor:
    """In float32 at least."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class LeCam(AdversarialLoss):
    """`loss` with w (E (r - a_F)^2 + E (f - a_R)^2) added to the critic's side; r, f the logits.

    The averages are of the steps before: `update` moves them. At the first step there is none, and nothing is added.
    Statistics are those of `loss` alone.

    Attributes:
        moments: `[3]`, decayed sums of the mean real logits, of the mean fake logits and of ones.
    """

    def __init__(self, loss: AdversarialLoss, weight: float, decay: float, device: torch.device) -> None:
        super().__init__(reduction=loss.reduction)
        self.loss, self.weight, self.decay = loss, weight, decay
        self.moments = torch.zeros(3, device=device)

    @property
    def generator_needs_real(self) -> bool:  # type: ignore[override] # the wrapped loss's
        return self.loss.generator_needs_real

    def discriminator(self, *, real: Any, fake: Any, with_stats: bool = False, **weights: Any) -> Any:
        loss, stats = self.loss.discriminator(real=real, fake=fake, with_stats=True, **weights)
        weight, of_real, of_fake = self._anchors(real)
        added = weight * ((wide(real) - of_fake).square().mean() + (wide(fake) - of_real).square().mean())
        return (loss + added, stats) if with_stats else loss + added

    def generator(self, **arguments: Any) -> Any:
        return self.loss.generator(**arguments)

    def logit_gradients(self, *, real: Any, fake: Any, **weights: Any) -> tuple[Any, Any]:
        for_real, for_fake = self.loss.logit_gradients(real=real, fake=fake, **weights)
        weight, of_real, of_fake = self._anchors(real)
        for_real = for_real + (2 * weight / real.numel() * (wide(real) - of_fake)).to(real.dtype)
        return for_real, for_fake + (2 * weight / fake.numel() * (wide(fake) - of_real)).to(fake.dtype)

    def update(self, stats: CriticStats, world: World) -> None:
        means = torch.stack([stats.real_mean, stats.fake_mean]).to(self.moments.dtype)
        means = torch.cat([distributed.mean(means, world), torch.ones_like(means[:1])])
        self.moments.lerp_(means, 1 - self.decay)

    def _anchors(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The weight, 0 before the first `update`, a_R and a_F."""
        sums, total = self.moments[:2], self.moments[2]
        real, fake = (sums / torch.where(total > 0, total, torch.ones_like(total))).to(wide(logits).dtype).unbind()
        return self.weight * (total > 0).to(real.dtype), real, fake


class Features:
    """Inside the block, what enters the critic's last layer in each of its passes."""

    def __init__(self, critic: nn.Module, wanted: bool) -> None:
        self.layer: nn.Module | None = None
        if wanted:
            self.layer = getattr(critic, "logit_layer", None)
            if self.layer is None:
                raise ValueError(
                    f"feature matching needs a critic with a `logit_layer`, and {type(critic).__name__} has none"
                )
        self.passes: list[Tensor] = []

    def __enter__(self) -> Features:
        if self.layer is not None:
            self._hook = self.layer.register_forward_pre_hook(lambda module, args: self.passes.append(args[0]))
        return self

    def __exit__(self, *error: object) -> None:
        if self.layer is not None:
            self._hook.remove()

    def real_and_fake(self) -> tuple[Tensor, Tensor]:
        """Of the last two passes, or of the two halves of one over both."""
        if len(self.passes) == 1:
            real, fake = self.passes[0].chunk(2)
            return real, fake
        return self.passes[-2], self.passes[-1]


class Applied:
    """The techniques of one step.

    Attributes:
        streams: random states by name, to be saved with a run: one for each technique that draws, so that a run draws
            the same latents with and without it.
    """

    def __init__(self, settings: Techniques, loss: AdversarialLoss, machine: Machine, world: World, seed: int) -> None:
        self.settings = settings
        self.machine, self.world = machine, world
        self.lecam = LeCam(loss, settings.lecam, settings.lecam_decay, machine.device) if settings.lecam else None
        drawn = {
            "instance_noise": settings.instance_noise,
            "augmentation": settings.bcr,
            "latent_noise": settings.zcr_critic or settings.zcr_generator,
        }
        self.streams = {
            name: torch.Generator(machine.device).manual_seed(seed + offset)
            for offset, (name, used) in enumerate(drawn.items(), 2)
            if used
        }
        self._augment = DiffAugment(settings.bcr_policy, (world.rank, world.size)) if settings.bcr else None
        # On the device, so that a captured step follows the schedule.
        self._noise = torch.zeros((), device=machine.device)
        self._kept = 1.0
        self.follow(0)

    def follow(self, images: int) -> None:
        """Move the schedules, for the step that begins after `images` images."""
        settings = self.settings
        if settings.instance_noise:
            left = max(0.0, 1 - images / settings.instance_noise_images)
            self._noise.fill_(settings.instance_noise * left)
        if settings.top_k != 1:
            self._kept = settings.top_k ** min(1.0, images / settings.top_k_images)

    def show(self, samples: Tensor) -> Tensor:
        """What the critic is shown: `[N, ...]` with noise, as packs `[N / m, m C, ...]`, or as they are."""
        settings = self.settings
        if settings.instance_noise:
            noise = self._draws(len(samples), "instance_noise").normal(*samples.shape[1:])
            samples = samples + self._noise * noise
        if settings.packing == 1:
            return samples
        if len(samples) % settings.packing:
            raise ValueError(
                f"{len(samples)} samples do not make packs of {settings.packing}: use a batch that the packing divides"
            )
        packs = samples.reshape(-1, settings.packing * samples.shape[1], *samples.shape[2:])
        return packs.contiguous(memory_format=self.machine.memory_format) if packs.ndim == 4 else packs

    def perturbed(self, latents: Tensor) -> Tensor:
        """z + e."""
        return latents + self.settings.zcr_noise * self._draws(len(latents), "latent_noise").normal(latents.shape[1])

    def augmented(self, images: Tensor) -> Tensor:
        """T(x)."""
        assert self._augment is not None
        return self._augment(images, generator=self.streams["augmentation"])

    def kept(self, fake_logits: Tensor) -> Tensor | None:
        """top-k's weights `[N]` for a mean over the batch: N/k for the k largest logits of all ranks, 0 for the others.

        Without top-k None.
        """
        if self.settings.top_k == 1:
            return None
        everyone = wide(distributed.gather(fake_logits, self.world)).flatten()
        k = max(1, round(self._kept * len(everyone)))
        weights = torch.zeros_like(everyone).index_fill_(0, everyone.topk(k).indices, len(everyone) / k)
        return weights[self.world.rank * len(fake_logits) :][: len(fake_logits)]

    def generator_loss(
        self, loss: AdversarialLoss, real_logits: Tensor | None, fake_logits: Tensor, features: Features
    ) -> Tensor:
        settings = self.settings
        value: Tensor = loss.generator(fake=fake_logits, real=real_logits, fake_weight=self.kept(fake_logits))
        if settings.adversarial != 1:
            value = settings.adversarial * value
        if settings.feature_matching:
            means = [wide(x).mean(0, keepdim=True) for x in features.real_and_fake()]
            real, fake = mean_with_gradient(means, self.world)
            value = value + settings.feature_matching * feature_matching(real, fake, moments=True)
        return value

    def _draws(self, count: int, stream: str) -> Draws:
        return Draws(count, self.machine.device, self.streams[stream], (self.world.rank, self.world.size))
