"""DiffAugment: colour, translation and cutout, drawn for each image, always on.

    color         x + b;  m_c + s (x - m_c), m_c the mean over channels;  m + k (x - m), m the image's mean
                  b ~ U(-1/2, 1/2),  s ~ U(0, 2),  k ~ U(1/2, 3/2)
    translation   by whole pixels up to an eighth of each side, zeros from outside
    cutout        a rectangle of half of each side around a random pixel becomes 0

Source: Zhao et al., "Differentiable Augmentation for Data-Efficient GAN Training", NeurIPS 2020, section 4 and the
strengths of its published settings.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gan_fast.augment.draws import Draws, check_images, working

TRANSFORMS = ("color", "translation", "cutout")


class DiffAugment(nn.Module):
    """Augments images `[N, C, H, W]`, sample by sample, in the order color, translation, cutout.

        augment = DiffAugment("color,translation")
        logits = critic(augment(images, generator=stream))

    Any number of channels and size; computed in fp32 (fp64 for fp64 images), returned in the images' dtype;
    differentiable to any order with respect to the images; nothing is read back from the device.

    Args:
        policy: some of `color`, `translation`, `cutout` with commas between them.
        share: (rank, world): rank's rows of the numbers for world times as many images (see `Draws`).

    Raises ValueError for an unknown policy or images it cannot take.
    """

    def __init__(self, policy: str = "color,translation,cutout", share: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        self.policy = policy
        self.names = transforms_of(policy)
        self.share = share

    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """`[N, C, H, W]`, augmented. `generator` lives on the images' device; torch's default one without it."""
        check_images("DiffAugment", images)
        draws = Draws(len(images), images.device, generator, self.share)
        x = working(images)
        if "color" in self.names:
            x = _colour(x, draws)
        if "translation" in self.names:
            x = _translated(x, draws)
        if "cutout" in self.names:
            x = x * _kept(draws, *x.shape[2:])
        return x.to(images.dtype)

    def extra_repr(self) -> str:
        return f"policy={self.policy!r}"


def transforms_of(policy: str) -> frozenset[str]:
    """The names of a policy's transforms; ValueError for one that does not exist."""
    names = [name.strip() for name in policy.split(",")]
    unknown = [name for name in names if name not in TRANSFORMS]
    if unknown:
        raise ValueError(
            f"DiffAugment has no transform {unknown[0]!r}: a policy is some of {', '.join(TRANSFORMS)} with commas "
            "between them"
        )
    return frozenset(names)


def _colour(x: Tensor, draws: Draws) -> Tensor:
    brightness, saturation, contrast = draws.uniform(3).view(-1, 3, 1, 1, 1).unbind(1)
    x = x + (brightness - 0.5)
    grey = x.mean(1, keepdim=True)
    x = grey + 2 * saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + (contrast + 0.5) * (x - mean)


def _translated(x: Tensor, draws: Draws) -> Tensor:
    n, c, h, w = x.shape
    u = draws.uniform(2)
    for dimension, size, drawn in ((3, w, u[:, 0]), (2, h, u[:, 1])):
        reach = int(size / 8 + 0.5)
        shift = (drawn * (2 * reach + 1)).floor().long() - reach
        source = torch.arange(size, device=x.device) - shift[:, None]
        inside = (source >= 0) & (source < size)
        shape = (n, 1, 1, size) if dimension == 3 else (n, 1, size, 1)
        index = source.clamp(0, size - 1).view(shape).expand(n, c, h, w)
        x = x.gather(dimension, index) * inside.view(shape).to(x.dtype)
    return x


def _kept(draws: Draws, height: int, width: int) -> Tensor:
    """0 inside the rectangle, 1 outside, `[N, 1, H, W]`."""
    u = draws.uniform(2)
    inside = []
    for i, size in enumerate((width, height)):
        side = int(size / 2 + 0.5)
        start = (u[:, i] * (size + 1 - side % 2)).floor() - side // 2
        offset = torch.arange(size, device=u.device) - start[:, None]
        inside.append((offset >= 0) & (offset < side))
    return (~(inside[0][:, None, None, :] & inside[1][:, None, :, None])).float()
