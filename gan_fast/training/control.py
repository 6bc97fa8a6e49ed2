"""A trained generator with its handles: seeds, classes, truncation, noise, styles.

    images = synthesis(styles, noise),   styles = w_avg + psi (mapping(z, c) - w_avg),   z ~ N(0, I) of the seed

where the generator has a style space (stylegan2); every other one is images = G(z), or G(z, c) if it knows classes. The
same seed gives the same picture as `Sampler` does, however many are made at once, up to the rounding of the machine's
products.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_bytes
from torch import Tensor

from gan_fast import models
from gan_fast.models import hifigan, stylegan2
from gan_fast.training.checkpoint import write_file
from gan_fast.training.sampling import Sampler, require_latents, seeded_latents

Noise = Literal["const", "random", "none"]

_PIXELS = 1 << 20
_MOST = 64
# Random noise of a seed comes from a stream of its own, so that it is not the numbers that made the latent.
_NOISE_STREAM = 1 << 32
_FORMAT = "gan_fast styles"


class Control:
    """The averaged generator of a run, or one from converted weights."""

    def __init__(self, run: Path | None, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        """`run` is a run folder or a checkpoint, `weights` a file or folder that `gan-fast convert` wrote; one of them.

        CheckpointError or WeightsError where it cannot be used.
        """
        self.device = torch.device(device)
        self.generator: torch.nn.Module
        if weights is not None:
            network = stylegan2.load_generator(weights)
            self.source, self.generator, self.latent_size = weights, network, network.z_dim
        elif run is not None:
            sampler = Sampler(run)
            self.source, self.generator, self.latent_size = sampler.folder, sampler.generator, sampler.latent_size
            if isinstance(self.generator, hifigan.Generator):
                raise ValueError(f"{self.source} holds a vocoder, which makes sound from sound: use `gan-fast vocode`")
            require_latents(self.latent_size, self.source)
        else:
            raise ValueError("Control needs a run or weights")
        self.generator.to(self.device)

    @property
    def classes(self) -> int:
        """How many classes the generator was trained on; 0 if it knows none."""
        return models.classes_of(self.generator)

    @property
    def rate(self) -> int:
        """Samples per second of the sounds it makes; 0 for anything else."""
        return int(getattr(self.generator, "rate", 0))

    def style_generator(self, wanted_for: str) -> stylegan2.Generator:
        """The generator, where it has styles; ValueError that says what has none."""
        if not isinstance(self.generator, stylegan2.Generator):
            raise ValueError(
                f"{wanted_for} needs a style space, as stylegan2 has; {self.source} holds a generator without"
            )
        return self.generator

    def latents(self, seeds: Sequence[int]) -> Tensor:
        """`[N, D]`."""
        return seeded_latents(seeds, self.latent_size).to(self.device)

    def labels(self, seeds: Sequence[int], classes: Sequence[int] = ()) -> Tensor:
        """One-hot `[N, classes]`: one class for all, one for each seed, or by default seed s mod their number.

        ValueError for a class that the generator does not know.
        """
        if classes and not self.classes:
            raise ValueError(f"{self.source} holds a generator without classes: leave --classes out")
        if len(classes) not in (0, 1, len(seeds)):
            raise ValueError(f"give one class, or one for each of the {len(seeds)} seeds, got {len(classes)}")
        if any(not 0 <= c < self.classes for c in classes):
            raise ValueError(f"classes of {self.source} are 0 to {self.classes - 1}, got {list(classes)}")
        labels = torch.zeros(len(seeds), self.classes, device=self.device)
        if self.classes:
            chosen = list(classes) * (len(seeds) // len(classes)) if classes else [s % self.classes for s in seeds]
            labels[torch.arange(len(seeds)), torch.tensor(chosen)] = 1
        return labels

    @torch.no_grad()
    def styles(self, latents: Tensor, labels: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """`[N, num_ws, w_dim]`, truncated by psi in the first `cutoff` layers (all by default)."""
        generator = self.style_generator("truncation" if psi != 1 or cutoff is not None else "this")
        if cutoff is not None and not 0 <= cutoff <= generator.num_ws:
            raise ValueError(
                f"the truncation cutoff must be from 0 to the generator's {generator.num_ws} layers, got {cutoff}"
            )
        return generator.mapping(latents, labels, psi, cutoff)

    def points(
        self, seeds: Sequence[int], classes: Sequence[int] = (), psi: float = 1.0, cutoff: int | None = None
    ) -> Tensor:
        """What `pictures` takes, of each seed: styles `[N, num_ws, w_dim]`, or of other generators latents and classes.

        ValueError for truncation or classes of a generator that has none.
        """
        return self.points_of(self.latents(seeds), self.labels(seeds, classes), psi, cutoff)

    def points_of(self, latents: Tensor, labels: Tensor, psi: float = 1.0, cutoff: int | None = None) -> Tensor:
        """The same of latents `[N, D]` and labels `[N, classes]`: styles, or both side by side `[N, D + classes]`."""
        if isinstance(self.generator, stylegan2.Generator) or psi != 1 or cutoff is not None:
            return self.styles(latents, labels, psi, cutoff)
        return torch.cat([latents, labels], 1)

    @torch.no_grad()
    def batches(self, points: Tensor, noise: Noise = "const", seeds: Sequence[int] | None = None) -> Iterator[Tensor]:
        """Images `[n, C, H, W]` in [-1, 1] (or points `[n, D]`), fp32 on the CPU, a few at a time.

        Args:
            points: from `points`: styles, or latents and classes of a generator without a style space.
            noise: of a style generator: its own constant maps, random ones that belong to `seeds`, or none.
            seeds: one for each point; needed for random noise.
        """
        generator = self.generator
        if not isinstance(generator, stylegan2.Generator):
            if noise != "const":
                self.style_generator(f"noise {noise}")
            sizes = [self.latent_size, self.classes] if self.classes else [self.latent_size]
            for part in points.split(_MOST):
                yield generator(*part.split(sizes, 1)).float().cpu()
            return
        size = max(1, min(_MOST, _PIXELS // generator.img_resolution**2))
        streams = None
        if noise == "random":
            if seeds is None or len(seeds) != len(points):
                raise ValueError("random noise needs a seed for each picture")
            streams = [torch.Generator().manual_seed(seed + _NOISE_STREAM) for seed in seeds]
        for start in range(0, len(points), size):
            source = None if streams is None else streams[start : start + size]
            images = generator.synthesis(points[start : start + size], noise, source)
            yield images.float().cpu().clamp_(-1, 1)

    def pictures(self, points: Tensor, noise: Noise = "const", seeds: Sequence[int] | None = None) -> Tensor:
        """All of `batches` in one tensor."""
        return torch.cat(list(self.batches(points, noise, seeds)))

    def use(self, maps: dict[str, Tensor]) -> None:
        """Put noise maps, such as a projection's, in the place of the generator's own."""
        generator = self.style_generator("a projected picture")
        buffers = dict(generator.named_buffers())
        for name, values in maps.items():
            if name not in buffers or buffers[name].shape != values.shape:
                raise ValueError(
                    f"{self.source} has no noise map {name} {list(values.shape)}: another generator's styles?"
                )
            buffers[name].copy_(values)


def save_styles(path: Path, ws: Tensor, noise: dict[str, Tensor]) -> None:
    """Styles `[1, num_ws, w_dim]` and noise maps in a safetensors file."""
    tensors = {"ws": ws, **{f"noise.{name}": values for name, values in noise.items()}}
    content = to_bytes(
        {name: t.detach().float().cpu().contiguous() for name, t in tensors.items()}, {"format": _FORMAT}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, content)


def load_styles(path: Path, generator: stylegan2.Generator) -> tuple[Tensor, dict[str, Tensor]]:
    """What `save_styles` wrote: styles and noise maps. ValueError where it is not that, or another generator's."""
    if not path.is_file():
        raise ValueError(f"{path} is not a file: `gan-fast project` writes one")
    try:
        with safe_open(str(path), framework="pt") as file:
            if (file.metadata() or {}).get("format") != _FORMAT:
                raise ValueError(f"{path} holds no styles: `gan-fast project` writes such a file")
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except SafetensorError as error:
        raise ValueError(f"{path} is not a readable safetensors file: {error}") from None
    ws = tensors.pop("ws")
    if tuple(ws.shape[1:]) != (generator.num_ws, generator.w_dim):
        raise ValueError(
            f"{path} holds styles {list(ws.shape)} and this generator takes [N, {generator.num_ws}, {generator.w_dim}]"
        )
    return ws, {name.removeprefix("noise."): values for name, values in tensors.items()}
