"""One training step of CycleGAN: both generators, then both critics on the pictures these made before their update.

The pool shows a critic the new picture or, with probability 1/2, an older one in whose place the new one is kept. Its
draws belong to the picture's place in the whole batch, and it holds the pictures of all processes, so that several of
them do what one does. Augmentation and R1 are not the paper's, and off unless asked for: the critics are shown T(x)
instead of each picture x, T differentiable and drawn anew for each, and r1/2 E |d m / d T(x)|^2 of real x is added to
their losses, m the mean of a picture's logits. Sources: Zhu et al. 2017, section 4; the pool is Shrivastava et al.
2017's, augmentation Zhao et al. 2020's, R1 Mescheder et al. 2018's.
"""

from __future__ import annotations

from contextlib import nullcontext

import torch
import torch.distributed as dist
from torch import Tensor

from gan_fast.augment import DiffAugment
from gan_fast.losses import CriticStats, LeastSquaresLoss, cycle_consistency, identity
from gan_fast.models.cyclegan import Critics, Generators
from gan_fast.penalties import fast_double_backward, r1_penalty
from gan_fast.training.distributed import World, average_gradients
from gan_fast.training.step import Players, StepStats


class ImagePool:
    """The last `size` pictures `[C, H, W]`, replaced at random. The first `size` that come are kept and given back."""

    def __init__(
        self, size: int, shape: tuple[int, ...], stream: torch.Generator, device: torch.device, world: World
    ) -> None:
        self.images = torch.zeros(size, *shape, device=device)
        self.count = torch.zeros((), dtype=torch.int64, device=device)
        self.stream, self.world = stream, world

    def exchange(self, new: Tensor) -> Tensor:
        """As many pictures as `new` `[N, C, H, W]`, to be shown to the critic. Nothing is read back from the device."""
        size = len(self.images)
        if not size:
            return new
        everyone = self._everyones(new)
        draws = torch.rand(len(everyone), 2, generator=self.stream, device=new.device)
        shown = torch.empty_like(everyone)
        for i, (image, (where, whether)) in enumerate(zip(everyone, draws, strict=True)):
            full = self.count >= size
            slot = torch.where(full, (where * size).long(), self.count).clamp(max=size - 1)[None]
            old = self.images.index_select(0, slot)[0]
            swap = full & (whether < 0.5)
            shown[i] = torch.where(swap, old, image)
            self.images.index_copy_(0, slot, torch.where(swap | ~full, image, old)[None])
            self.count.add_(1).clamp_(max=size)
        return shown[self.world.rank * len(new) :][: len(new)]

    def _everyones(self, new: Tensor) -> Tensor:
        """The pictures of all ranks, in their order."""
        if self.world.size == 1:
            return new
        parts = [torch.empty_like(new, memory_format=torch.contiguous_format) for _ in range(self.world.size)]
        dist.all_gather(parts, new.contiguous())
        return torch.cat(parts)


class CycleGANStep:
    """Calls are those of the trainer (`gan_fast.training.step.Step`); `shape` is `(C, H, W)` of a picture."""

    def __init__(
        self,
        players: Players,
        shape: tuple[int, int, int],
        *,
        cycle: float,
        identity: float,
        pool: int,
        r1: float,
        diffaugment: str,
        seed: int,
    ) -> None:
        assert isinstance(players.generator, Generators) and isinstance(players.critic, Critics)
        self.generators, self.critics = players.generator, players.critic
        self.generator_optimizer, self.critic_optimizer = players.optimizers
        self.machine, self.world = players.machine, players.world
        self.shape, self.cycle, self.identity = shape, cycle, identity
        self.loss, self.r1 = LeastSquaresLoss(), r1
        device = self.machine.device
        self.streams = {"pool": torch.Generator(device).manual_seed(seed + 1)}
        self.augment: DiffAugment | None = None
        if diffaugment:
            self.augment = DiffAugment(diffaugment, (self.world.rank, self.world.size))
            self.streams["augmentation"] = torch.Generator(device).manual_seed(seed + 2)
        self.pools = [ImagePool(pool, shape, self.streams["pool"], device, self.world) for _ in range(2)]
        self._parts = {name: torch.zeros((), device=device) for name in ("adversarial", "cycle", "identity")}

    def __call__(self, real: Tensor, step: int, labels: Tensor | None = None) -> StepStats:
        """Step number `step`, from 1, on pictures of A and of B, `[N, 2 C, H, W]` in [-1, 1]."""
        a, b = (x.contiguous(memory_format=self.machine.memory_format) for x in real.split(self.shape[0], 1))
        loss, fake_a, fake_b = self.train_generators(a, b)
        shown_a, shown_b = (pool.exchange(x) for pool, x in zip(self.pools, (fake_a, fake_b), strict=True))
        return StepStats(self.train_critics(a, b, shown_a, shown_b), loss)

    def train_generators(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The loss, and the pictures made of b and of a before the update."""
        a_to_b, b_to_a = self.generators.a_to_b, self.generators.b_to_a
        # The critics only pass the gradient on: their own weight gradients would be computed for nothing.
        self.critics.requires_grad_(False)
        with self.machine.autocast():
            # Instance norm does not mix samples, so what both terms need of one generator is one batch.
            if self.identity:
                fake_b, same_b = a_to_b(torch.cat([a, b])).chunk(2)
                fake_a, same_a = b_to_a(torch.cat([b, a])).chunk(2)
            else:
                fake_b, fake_a = a_to_b(a), b_to_a(b)
            cycled_a, cycled_b = b_to_a(fake_b), a_to_b(fake_a)
            logits = [self.critics.of_b(self._shown(fake_b)), self.critics.of_a(self._shown(fake_a))]
        # The class has the 1/2 of the critic's loss in both; the paper halves the critic's alone.
        parts = {"adversarial": 2 * self.loss.generator(fake=logits)}
        cycles = (cycle_consistency(x, y.float(), self.cycle) for x, y in ((a, cycled_a), (b, cycled_b)))
        parts["cycle"] = torch.stack(list(cycles)).sum()
        if self.identity:
            parts["identity"] = identity(a, same_a.float(), self.identity) + identity(b, same_b.float(), self.identity)
        loss = torch.stack(list(parts.values())).sum()
        self.generator_optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(self.generators.parameters(), self.world)
        self.generator_optimizer.step()
        self.critics.requires_grad_(True)
        for name, value in parts.items():
            self._parts[name].copy_(value.detach())
        return loss.detach(), fake_a.detach().float(), fake_b.detach().float()

    def train_critics(self, a: Tensor, b: Tensor, fake_a: Tensor, fake_b: Tensor) -> CriticStats:
        a, b, fake_a, fake_b = (self._shown(x) for x in (a, b, fake_a, fake_b))
        with fast_double_backward() if self.r1 else nullcontext():
            if self.r1:
                a, b = (x.requires_grad_() for x in (a.detach(), b.detach()))
            with self.machine.autocast():
                of_a = self.critics.of_a(torch.cat([a, fake_a])).chunk(2)
                of_b = self.critics.of_b(torch.cat([b, fake_b])).chunk(2)
            loss, stats = self.loss.discriminator(real=[of_a[0], of_b[0]], fake=[of_a[1], of_b[1]], with_stats=True)
            if self.r1:
                for logits, x in ((of_a[0], a), (of_b[0], b)):
                    loss = loss + r1_penalty(logits.flatten(1).mean(1), x, self.r1)
            self.critic_optimizer.zero_grad(set_to_none=True)
            loss.backward()
        average_gradients(self.critics.parameters(), self.world)
        self.critic_optimizer.step()
        checked: CriticStats = stats
        return checked

    def _shown(self, images: Tensor) -> Tensor:
        """What a critic is given in place of pictures."""
        if self.augment is None:
            return images
        shown: Tensor = self.augment(images, generator=self.streams["augmentation"])
        return shown.contiguous(memory_format=self.machine.memory_format)

    def state(self) -> dict[str, Tensor]:
        names = ("pool_a", "pool_b")
        saved = {}
        for name, pool in zip(names, self.pools, strict=True):
            saved.update({name: pool.images, f"{name}_count": pool.count})
        return saved

    def figures(self) -> dict[str, Tensor]:
        return self._parts
