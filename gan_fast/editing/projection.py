"""Finds the style w, and the noise maps n_i, of the picture nearest to a given one.

    minimise over w, n    distance(synthesis(w + e, n), image) + 1e5 sum_i R(n_i)
    e ~ N(0, (0.05 sigma t^2)^2),   t from 1 to 0 over the first 3/4 of the steps,   sigma^2 = E |w(z) - w_avg|^2
    R(n)  = sum over n averaged down to 8x8 of  mean(n n_left)^2 + mean(n n_up)^2

w starts at the mean of 10,000 mapped latents; the noise e on it leaves local minima early; R keeps the maps noise, so
that the picture is not painted into them, and they are brought back to mean 0 and variance 1 after each step. Adam's
rate rises over the first 1/20 of the steps and falls by a cosine over the last quarter.
Source: Karras et al. 2020 (StyleGAN2), appendix D. There the distance is LPIPS, of a network that is trained on
labelled photographs and has to be downloaded. Here it is a function that the caller gives; the default compares pixels.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from gan_fast.models.stylegan2 import Generator

Distance = Callable[[Tensor, Tensor], Tensor]

LATENTS = 10_000
NOISE_WEIGHT = 1e5
W_NOISE = 0.05
# Pictures above this side are averaged down before they are compared, as in the paper.
LARGEST_COMPARED = 256
SMALLEST_MAP = 8


class Projection(NamedTuple):
    """What was found.

    ws: styles `[1, num_ws, w_dim]`. noise: name of each `noise_const` buffer to its map. image: `[1, C, H, H]` of both.
    distances: before every step, at w + e; distance: of `image`.
    """

    ws: Tensor
    noise: dict[str, Tensor]
    image: Tensor
    distances: list[float]
    distance: float


def pyramid_distance(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared difference of pixels, averaged over the pictures at full size, at half, a quarter, ... down to 4x4.

    `[N, C, H, H]` twice to a number. Coarse sizes make the basin wide: shapes that are off by some pixels still pull.
    It is no perceptual measure: it does not know what matters in a face, and prefers blur to misplaced detail.
    """
    total = (a - b).square().mean()
    count = 1
    difference = a - b
    while difference.shape[-1] >= 8 and difference.shape[-1] % 2 == 0:
        difference = F.avg_pool2d(difference, 2)
        total = total + difference.square().mean()
        count += 1
    return total / count


def project(
    generator: Generator,
    image: Tensor,
    *,
    steps: int = 1000,
    distance: Distance | None = None,
    c: Tensor | None = None,
    with_noise: bool = True,
    learning_rate: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> Projection:
    """Project a picture into the style space W of a generator. The generator is left as it is.

    Args:
        generator: any precision; the search runs it in the dtype of its weights.
        image: `[C, H, H]` or `[1, C, H, H]` in [-1, 1], of the generator's size.
        steps: the paper's are 1000; a few hundred find the rough picture.
        distance: of two pictures `[1, C, h, h]` (h at most 256), to a number that has a gradient. Default:
            `pyramid_distance`. A perceptual network makes better matches: `lambda a, b: lpips(a, b).mean()`, or
            features of your own: `lambda a, b: (f(a) - f(b)).square().mean()`.
        c: class `[1, c_dim]` of a conditional generator.
        with_noise: fit the noise maps too. Without, they stay as they are.
        learning_rate: at its highest.
        seed: of the latents and of all noise; the result depends on it alone.
        progress: called with each step and its distance.

    Raises:
        ValueError: a picture of another size, or settings that make no search.
    """
    target = image[None] if image.dim() == 3 else image
    expected = [1, generator.img_channels, generator.img_resolution, generator.img_resolution]
    if list(target.shape) != expected:
        raise ValueError(f"the picture is {list(image.shape)}, expected {expected[1:]}: one picture of this generator")
    if steps < 1 or not learning_rate > 0:
        raise ValueError(f"steps and learning_rate must be positive, got {steps} and {learning_rate}")
    measure = pyramid_distance if distance is None else distance
    network = copy.deepcopy(generator).eval().requires_grad_(False)
    weight = network.mapping.fc0.weight
    stream = torch.Generator().manual_seed(seed)
    target = _as_compared(target.to(weight))
    mean, sigma = _style_statistics(network, c, stream)

    w = mean.clone().requires_grad_()
    noise = {name: buffer for name, buffer in network.named_buffers() if name.endswith("noise_const")}
    fitted = list(noise.values()) if with_noise else []
    for buffer in fitted:
        buffer.copy_(torch.randn(buffer.shape, generator=stream).to(buffer))
        buffer.requires_grad_()
    optimizer = torch.optim.Adam([w, *fitted], learning_rate, betas=(0.9, 0.999))

    distances = []
    with torch.enable_grad():
        for step in range(steps):
            t = step / steps
            optimizer.param_groups[0]["lr"] = learning_rate * _rate(t)
            spread = W_NOISE * sigma * max(0.0, 1 - t / 0.75) ** 2
            moved = w + spread * torch.randn(w.shape, generator=stream).to(w)
            loss = measure(_as_compared(_picture(network, moved)), target)
            distances.append(float(loss.detach()))
            if progress is not None:
                progress(step, distances[-1])
            if fitted:
                loss = loss + NOISE_WEIGHT * torch.stack([_not_noise(n) for n in fitted]).sum()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for buffer in fitted:
                    _normalise_(buffer)
    with torch.no_grad():
        found = _picture(network, w)
        final = float(measure(_as_compared(found), target))
    ws = w.detach().unsqueeze(1).repeat(1, network.num_ws, 1)
    maps = {name: buffer.detach().clone() for name, buffer in noise.items()}
    return Projection(ws, maps, found, distances, final)


def _picture(network: Generator, w: Tensor) -> Tensor:
    return network.synthesis(w.unsqueeze(1).expand(-1, network.num_ws, -1), noise_mode="const", force_fp32=True)


def _as_compared(images: Tensor) -> Tensor:
    side = images.shape[-1]
    return F.avg_pool2d(images, side // LARGEST_COMPARED) if side > LARGEST_COMPARED else images


@torch.no_grad()
def _style_statistics(network: Generator, c: Tensor | None, stream: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mean style `[1, w_dim]` and sigma, 0-dim, over 10,000 latents."""
    weight = network.mapping.fc0.weight
    styles = []
    for part in torch.randn(LATENTS, network.z_dim, generator=stream).split(1000):
        classes = None if c is None else c.to(weight).expand(len(part), -1)
        styles.append(network.mapping(part.to(weight), classes, skip_w_avg_update=True)[:, 0])
    w = torch.cat(styles)
    mean = w.mean(0, keepdim=True)
    return mean, (w - mean).square().sum(1).mean().sqrt()


def _rate(t: float) -> float:
    """Of the learning rate, at the share t of the steps."""
    down = min(1.0, (1 - t) / 0.25)
    return (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, t / 0.05)


def _not_noise(n: Tensor) -> Tensor:
    """R of a map `[H, H]`: how much neighbours agree, at every size down to 8x8; its edges touch."""
    total = n.new_zeros(())
    level = n[None, None]
    while True:
        for dim in (2, 3):
            total = total + (level * level.roll(1, dim)).mean().square()
        if level.shape[-1] <= SMALLEST_MAP:
            return total
        # Twice the average keeps the variance of independent noise.
        level = F.avg_pool2d(level, 2) * 2


def _normalise_(n: Tensor) -> None:
    n -= n.mean()
    n *= n.square().mean().rsqrt()
