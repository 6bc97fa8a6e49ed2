"""One training step of StyleGAN2: two losses at every step, two penalties now and then.

    generator    softplus(-D(T(G(z))))                                                   every step
    path length  w E (|J^T y| - a)^2,  J = d G / d w,  y ~ N(0, I)                       every 4th, times 4
    critic       softplus(-D(T(x))) + softplus(D(T(G(z))))                               every step
    R1           gamma/2 E |d D(T(x)) / d x|^2                                           every 16th, times 16

T is the augmentation, the same for real and generated images and inside both networks' gradients. Each of the four is
a backward pass and an update of its own, with latents of its own. A share of the latents is mixed: the layers from a
random one on take the style of a second latent.

Sources: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 3 and appendix B (lazy
regularisation); Karras et al. 2020, "Training Generative Adversarial Networks with Limited Data" (T).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from gan_fast.augment import ADA, AdaptiveProbability, DiffAugment
from gan_fast.augment.draws import Draws
from gan_fast.losses import CriticStats, NonSaturatingLoss
from gan_fast.models.stylegan2 import Discriminator, Generator
from gan_fast.penalties import PathLengthPenalty, fast_double_backward, r1_penalty
from gan_fast.training import distributed
from gan_fast.training.step import Players, StepStats


class Regularisation(NamedTuple):
    """Weights of the penalties, and every how many steps each is taken; a weight of 0 for none."""

    r1: float
    r1_every: int
    path_length: float
    path_length_every: int
    path_length_decay: float
    path_length_shrink: int


class StyleGAN2Step:
    """The four phases. Calls are those of the trainer (`gan_fast.training.step.Step`).

    Latents, style mixing, noise and augmentation are drawn by the sample's place in the whole batch, so that several
    processes do what one does wherever the critic does not mix samples (its minibatch deviation is one process's).
    """

    def __init__(
        self,
        players: Players,
        regularisation: Regularisation,
        *,
        style_mixing: float,
        augment: ADA | DiffAugment | None,
        adaptive: AdaptiveProbability | None,
        seed: int,
    ) -> None:
        assert isinstance(players.generator, Generator) and isinstance(players.critic, Discriminator)
        self.generator, self.critic = players.generator, players.critic
        self.generator_optimizer, self.critic_optimizer = players.optimizers
        self.latents, self.machine, self.world = players.latents, players.machine, players.world
        self.regularisation = regularisation
        self.style_mixing = style_mixing
        self.augment = augment
        self.adaptive = adaptive
        self.loss = NonSaturatingLoss()
        device = self.machine.device
        decay = regularisation.path_length_decay
        self.path_length = PathLengthPenalty(regularisation.path_length, decay).to(device)
        self._r1 = torch.zeros((), device=device)
        # Streams of their own: a run draws the same latents with and without each of these.
        self.streams = {
            name: torch.Generator(device).manual_seed(seed + offset)
            for offset, name in enumerate(("mixing", "noise", "augmentation", "path_length"), 1)
        }

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on real images `[N, C, R, R]` in [-1, 1] and, if conditional, `[N, classes]`.

        The labels of generated images are those of the real ones, so they are distributed alike.
        """
        rules = self.regularisation
        generator_loss = self.train_generator(len(real), labels)
        if rules.path_length and (step - 1) % rules.path_length_every == 0:
            self.regularise_generator(len(real), labels)
        stats = self.train_critic(real, labels)
        if rules.r1 and (step - 1) % rules.r1_every == 0:
            self.regularise_critic(real, labels)
        if self.adaptive is not None:
            self.adaptive.update(stats.real_sign_mean, len(real), step)
        return StepStats(stats, generator_loss)

    def train_generator(self, count: int, labels: Tensor | None) -> Tensor:
        # The critic only passes the gradient on: its own weight gradients would be computed for nothing.
        trained = [p for p in self.critic.parameters() if p.requires_grad]
        for p in trained:
            p.requires_grad_(False)
        fake = self._synthesise(self._styles(count, labels), count)
        loss = self.loss.generator(fake=self._score(fake, labels))
        self._descend(self.generator, self.generator_optimizer, loss)
        for p in trained:
            p.requires_grad_(True)
        self._share_mean_style()
        return loss.detach()

    def regularise_generator(self, count: int, labels: Tensor | None) -> None:
        rules = self.regularisation
        # The paper's: path lengths are estimated well enough from half of the batch.
        count = max(1, count // rules.path_length_shrink)
        styles = self._styles(count, None if labels is None else labels[:count])
        images = self._synthesise(styles, count)
        # As with latents, every rank moves the stream by the whole batch and uses its own part.
        stream, rank, world = self.streams["path_length"], self.world.rank, self.world.size
        self._skip(images, rank)
        with fast_double_backward():
            penalty = self.path_length(images, styles, generator=stream)
        self._skip(images, world - 1 - rank)
        self._descend(self.generator, self.generator_optimizer, penalty * rules.path_length_every)
        self._share_mean_style()

    def train_critic(self, real: Tensor, labels: Tensor | None) -> CriticStats:
        with torch.no_grad():
            fake = self._synthesise(self._styles(len(real), labels), len(real))
            self._share_mean_style()
        # One after the other: the minibatch deviation of a mixed batch would tell every image about the others' origin.
        fake_logits = self._score(fake, labels)
        real_logits = self._score(real, labels)
        loss, stats = self.loss.discriminator(real=real_logits, fake=fake_logits, with_stats=True)
        self._descend(self.critic, self.critic_optimizer, loss)
        return stats

    def regularise_critic(self, real: Tensor, labels: Tensor | None) -> None:
        rules = self.regularisation
        images = real.detach().requires_grad_()
        with fast_double_backward():
            penalty = r1_penalty(self._score(images, labels), images, rules.r1)
        self._r1 = penalty.detach()
        self._descend(self.critic, self.critic_optimizer, penalty * rules.r1_every)

    def state(self) -> dict[str, Tensor]:
        saved = {"path_length_mean": self.path_length.mean, "r1_value": self._r1}
        if self.adaptive is not None:  # a fixed p is a setting, which may be another when the run goes on
            saved.update(
                augmentation_p=self.adaptive.p,
                augmentation_statistics=self.adaptive.statistics,
                augmentation_r=self.adaptive.r,
            )
        return saved

    def figures(self) -> dict[str, Tensor]:
        shown = {"path_length": self.path_length.mean, "r1": self._r1}
        if isinstance(self.augment, ADA):
            shown["augment_p"] = self.augment.p
        return shown

    def _styles(self, count: int, labels: Tensor | None) -> Tensor:
        """`[count, num_ws, w_dim]`: of z, and with probability `style_mixing` of a second z from a random layer on."""
        mapping = self.generator.mapping
        styles = mapping(self.latents.draw(count), labels)
        if not self.style_mixing:
            return styles
        share = (self.world.rank, self.world.size)
        draws = Draws(count, styles.device, self.streams["mixing"], share)
        mixed, where = draws.uniform() < self.style_mixing, draws.uniform()
        layers = styles.shape[1]
        first = torch.where(mixed, 1 + (where * (layers - 1)).floor(), layers)
        second = mapping(self.latents.draw(count), labels, skip_w_avg_update=True)
        from_second = torch.arange(layers, device=styles.device) >= first[:, None]
        return torch.where(from_second[:, :, None], second, styles)

    def _synthesise(self, styles: Tensor, count: int) -> Tensor:
        draws = Draws(count, styles.device, self.streams["noise"], (self.world.rank, self.world.size))
        images: Tensor = self.generator.synthesis(
            styles, noise_generator=lambda samples, side: draws.normal(1, side, side)
        )
        return images

    def _score(self, images: Tensor, labels: Tensor | None) -> Tensor:
        if self.augment is not None:
            images = self.augment(images, generator=self.streams["augmentation"])
        logits: Tensor = self.critic(images, labels)
        return logits

    def _descend(self, network: nn.Module, optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.machine.precision == "fp16":
            # float16 overflows now and then, and the paper's runs have no loss scale: such a gradient becomes finite.
            for p in network.parameters():
                if p.grad is not None:
                    torch.nan_to_num(p.grad, nan=0.0, posinf=1e5, neginf=-1e5, out=p.grad)
        distributed.average_gradients(network.parameters(), self.world)
        optimizer.step()

    def _skip(self, images: Tensor, ranks: int) -> None:
        if ranks:
            shape = (ranks * images.shape[0], *images.shape[1:])
            torch.randn(shape, generator=self.streams["path_length"], device=images.device)

    def _share_mean_style(self) -> None:
        """Each rank moved the running mean style by its own part of the batch."""
        if self.world.size > 1:
            w_avg = self.generator.mapping.w_avg
            w_avg.copy_(distributed.mean(w_avg.clone(), self.world))
