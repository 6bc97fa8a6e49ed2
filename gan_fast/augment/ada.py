"""ADA's pipeline: 18 random transforms of an image, each applied with probability p, independently for each image.

    b  blit       x-flip, quarter turns, whole-pixel shifts
    g  geometry   scale, rotation, stretch, sub-pixel shifts       one resampling pass for b and g: y(c) = x(G^-1 c)
    c  colour     brightness, contrast, luma flip, hue, saturation       one matrix: y = C [r, g, b, 1]
    f  filter     gain of four frequency bands
    n  noise      of random strength
    c  cutout     half of each side, grey

Source: Karras et al., "Training Generative Adversarial Networks with Limited Data", NeurIPS 2020, appendix B, whose
strengths these are. Colour axes: v = [1, 1, 1] / sqrt 3 is luma.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from gan_fast import ops
from gan_fast.augment import geometry, wavelets
from gan_fast.augment.draws import Draws, check_images, working

BLIT = ("x_flip", "rotate_90", "integer_shift")
GEOMETRY = ("scale", "rotate", "stretch", "fractional_shift")
COLOUR = ("brightness", "contrast", "luma_flip", "hue", "saturation")
FILTER = ("band_1", "band_2", "band_3", "band_4")
TRANSFORMS = (*BLIT, *GEOMETRY, *COLOUR, *FILTER, "noise", "cutout")

POLICIES: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOMETRY,
    "color": COLOUR,
    "filter": FILTER,
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": (*BLIT, *GEOMETRY),
    "bgc": (*BLIT, *GEOMETRY, *COLOUR),
    "bgcf": (*BLIT, *GEOMETRY, *COLOUR, *FILTER),
    "bgcfn": (*BLIT, *GEOMETRY, *COLOUR, *FILTER, "noise"),
    "bgcfnc": TRANSFORMS,
}

# Expected share of an image's power in each band (1/f^2), by which gains are normalised.
_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


class ADA(nn.Module):
    """Augments images `[N, C, H, W]`, sample by sample, with the transforms of a policy.

        augment = ADA("bgc", p=0.2)
        logits = critic(augment(images, generator=stream))

    Computed in fp32 (fp64 for fp64 images), returned in the images' dtype and on their device. Differentiable to any
    order with respect to the images (linear in them); nothing is read back from the device and no shape depends on what
    is drawn. At p = 0 it is the identity up to rounding. Sizes from 8 pixels, square or not; 3 channels, or 1, which
    counts as three equal ones; any number without colour transforms. For each transform in the order of the table
    above, [N] uniform numbers choose the images, then its amounts are drawn, whatever p is.

    Args:
        policy: `blit`, `geom`, `color`, `filter`, `noise`, `cutout`, `bg`, `bgc`, `bgcf`, `bgcfn`, `bgcfnc`, or names
            of single transforms (`TRANSFORMS`) with commas between them.
        p: probability of each transform: the 0-dim buffer `p`, which `AdaptiveProbability` moves.
        share: (rank, world): rank's rows of the numbers for world times as many images (see `Draws`).

    Raises ValueError for an unknown policy, a p outside [0, 1], or images it cannot take.
    """

    p: Tensor
    filter_: Tensor
    bands: Tensor
    rgb: Tensor
    luma: Tensor
    around_luma: Tensor
    power: Tensor

    def __init__(self, policy: str = "bgc", p: float = 0.0, share: tuple[int, int] = (0, 1)) -> None:
        super().__init__()
        if not 0 <= p <= 1:
            raise ValueError(f"ADA got p={p}, expected a probability in [0, 1]")
        self.policy = policy
        self.names = transforms_of(policy)
        self.share = share
        self.register_buffer("p", torch.tensor(float(p)))
        self.register_buffer("filter_", ops.setup_filter(list(wavelets.SYM6)), persistent=False)
        self.register_buffer("bands", wavelets.bands(), persistent=False)
        # Small constants live on the device: making them there at each call would wait for it.
        self.register_buffer("rgb", torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])), persistent=False)
        v = torch.tensor([1.0, 1.0, 1.0, 0.0]) / math.sqrt(3)
        self.register_buffer("luma", v.outer(v), persistent=False)
        cross = torch.tensor([[0.0, -1, 1, 0], [1, 0, -1, 0], [-1, 1, 0, 0], [0, 0, 0, 0]])
        self.register_buffer("around_luma", cross / math.sqrt(3), persistent=False)
        self.register_buffer("power", torch.tensor(_POWER), persistent=False)

    def forward(self, images: Tensor, *, generator: torch.Generator | None = None) -> Tensor:
        """`[N, C, H, W]`, augmented. `generator` lives on the images' device; torch's default one without it."""
        self._check(images)
        draws = Draws(len(images), images.device, generator, self.share)
        x = working(images)
        if self._any(*BLIT, *GEOMETRY):
            x = geometry.resample(x, self.inverse_matrix(draws, *x.shape[2:]).to(x.dtype), self.filter_.float())
        if self._any(*COLOUR):
            x = _recolour(x, self.colour_matrix(draws).to(x.dtype))
        if self._any(*FILTER):
            x = self._filtered(x, self.band_gains(draws).to(x.dtype))
        if "noise" in self.names:
            strength = self._where(draws, lambda: draws.normal().abs() * 0.1, 0.0)
            x = x + strength.view(-1, 1, 1, 1) * draws.normal(*x.shape[1:])
        if "cutout" in self.names:
            x = x * self._kept(draws, *x.shape[2:])
        return x.to(images.dtype)

    def inverse_matrix(self, draws: Draws, height: int, width: int) -> Tensor:
        """G^-1, `[N, 3, 3]`, of blit and geometry: G = T_n ... T_1, so G^-1 = T_1^-1 ... T_n^-1."""
        g = torch.eye(3, device=draws.device).expand(draws.count, 3, 3)
        if "x_flip" in self.names:
            i = self._where(draws, lambda: (draws.uniform() * 2).floor(), 0.0)
            g = g @ geometry.scaling(1 - 2 * i, torch.ones_like(i))
        if "rotate_90" in self.names:
            i = self._where(draws, lambda: (draws.uniform() * 4).floor(), 0.0)
            g = g @ geometry.rotation(math.pi / 2 * i)
        if "integer_shift" in self.names:
            x, y = self._where(draws, lambda: draws.uniform(2) * 0.25 - 0.125, 0.0).unbind(1)
            g = g @ geometry.translation(-(x * width).round(), -(y * height).round())
        if "scale" in self.names:
            s = self._where(draws, lambda: torch.exp2(0.2 * draws.normal()), 1.0)
            g = g @ geometry.scaling(1 / s, 1 / s)
        # Two rotations, before and after the stretch; with this p for each, one at least happens with probability p.
        p_rotate = 1 - (1 - self.p).sqrt()
        if "rotate" in self.names:
            g = g @ geometry.rotation(self._where(draws, lambda: _angle(draws), 0.0, p_rotate))
        if "stretch" in self.names:
            s = self._where(draws, lambda: torch.exp2(0.2 * draws.normal()), 1.0)
            g = g @ geometry.scaling(1 / s, s)
        if "rotate" in self.names:
            g = g @ geometry.rotation(self._where(draws, lambda: _angle(draws), 0.0, p_rotate))
        if "fractional_shift" in self.names:
            x, y = self._where(draws, lambda: draws.normal(2) * 0.125, 0.0).unbind(1)
            g = g @ geometry.translation(-x * width, -y * height)
        return g

    def colour_matrix(self, draws: Draws) -> Tensor:
        """C, `[N, 4, 4]`, of colours [r, g, b, 1]."""
        eye = torch.eye(4, device=draws.device)
        rgb, luma = self.rgb.float(), self.luma.float()
        c = eye.expand(draws.count, 4, 4)
        if "brightness" in self.names:
            b = self._where(draws, lambda: draws.normal() * 0.2, 0.0)
            shift = torch.zeros(4, 4, device=draws.device)
            shift[:3, 3] = 1
            c = (eye + b.view(-1, 1, 1) * shift) @ c
        if "contrast" in self.names:
            s = self._where(draws, lambda: torch.exp2(0.5 * draws.normal()), 1.0).view(-1, 1, 1)
            c = (eye + (s - 1) * rgb) @ c
        if "luma_flip" in self.names:
            i = self._where(draws, lambda: (draws.uniform() * 2).floor(), 0.0)
            c = (eye - 2 * i.view(-1, 1, 1) * luma) @ c
        if "hue" in self.names:
            angle = self._where(draws, lambda: _angle(draws), 0.0).view(-1, 1, 1)
            # Rodrigues: I + sin K + (1 - cos) K^2, K the cross product with v.
            k = self.around_luma.float()
            c = (eye + angle.sin() * k + (1 - angle.cos()) * (k @ k)) @ c
        if "saturation" in self.names:
            s = self._where(draws, lambda: torch.exp2(draws.normal()), 1.0).view(-1, 1, 1)
            c = (eye + (s - 1) * (rgb - luma)) @ c
        return c

    def band_gains(self, draws: Draws) -> Tensor:
        """`[N, 4]`: each band's gain drawn and normalised in turn to the expected power of an image, multiplied up."""
        gains = torch.ones(draws.count, 4, device=draws.device)
        for band, name in enumerate(FILTER):
            if name in self.names:
                drawn = self._where(draws, lambda: torch.exp2(draws.normal()), 1.0)
                t = torch.where(torch.arange(4, device=draws.device) == band, drawn[:, None], 1.0)
                gains = gains * t / (self.power.float() * t.square()).sum(1, keepdim=True).sqrt()
        return gains

    def _filtered(self, x: Tensor, gains: Tensor) -> Tensor:
        """The sum of bands times gains, along rows and then along columns, borders reflected."""
        n, c, h, w = x.shape
        bands, taps = self.bands.to(x.dtype), self.bands.shape[1]
        weights = gains.repeat_interleave(c, 0).view(n * c, 4, 1, 1)
        rows = _reflected(w, taps // 2, x.device)
        x = x.index_select(3, rows).reshape(n * c, 1, h, len(rows))
        x = (ops.conv2d(x, bands.view(4, 1, 1, taps)) * weights).sum(1, keepdim=True)
        columns = _reflected(h, taps // 2, x.device)
        x = ops.conv2d(x.index_select(2, columns), bands.view(4, 1, taps, 1))
        return (x * weights).sum(1).view(n, c, h, w)

    def _kept(self, draws: Draws, height: int, width: int) -> Tensor:
        """0 inside a rectangle of half the sides around a random centre, 1 outside, `[N, 1, H, W]`."""
        half = self._where(draws, lambda: torch.full((draws.count,), 0.25, device=draws.device), 0.0)
        centre = draws.uniform(2)
        inside = [
            ((torch.arange(size, device=draws.device) + 0.5) / size - centre[:, i, None]).abs() < half[:, None]
            for i, size in enumerate((width, height))
        ]
        return (~(inside[0][:, None, None, :] & inside[1][:, None, :, None])).float()

    def _where(self, draws: Draws, amount: Callable[[], Tensor], neutral: float, p: Tensor | None = None) -> Tensor:
        """What is drawn for the images that are chosen, `neutral` for the others."""
        chosen = draws.uniform() < (self.p if p is None else p).float()
        drawn = amount()
        return torch.where(chosen.view(-1, *[1] * (drawn.ndim - 1)), drawn, neutral)

    def _any(self, *names: str) -> bool:
        return not self.names.isdisjoint(names)

    def _check(self, images: Tensor) -> None:
        check_images("ADA", images, (1, 3) if self._any(*COLOUR) else None)
        if self._any(*BLIT, *GEOMETRY) and min(images.shape[2:]) < geometry.SMALLEST:
            raise ValueError(
                f"ADA got images of {images.shape[2]}x{images.shape[3]} pixels, its geometry needs at least "
                f"{geometry.SMALLEST}: leave it out of the policy"
            )

    def extra_repr(self) -> str:
        return f"policy={self.policy!r}"


def transforms_of(policy: str) -> frozenset[str]:
    """The names of a policy's transforms; ValueError for one that does not exist."""
    if policy in POLICIES:
        return frozenset(POLICIES[policy])
    names = [name.strip() for name in policy.split(",")]
    unknown = [name for name in names if name not in TRANSFORMS]
    if unknown:
        raise ValueError(
            f"ADA has no transform {unknown[0]!r}: a policy is one of {', '.join(POLICIES)}, or some of "
            f"{', '.join(TRANSFORMS)} with commas between them"
        )
    return frozenset(names)


def _angle(draws: Draws) -> Tensor:
    return (draws.uniform() * 2 - 1) * math.pi


def _recolour(x: Tensor, c: Tensor) -> Tensor:
    if x.shape[1] == 1:
        # Three equal channels in, the mean of three out.
        mean = c[:, :3].mean(1)
        return x * mean[:, :3].sum(1).view(-1, 1, 1, 1) + mean[:, 3].view(-1, 1, 1, 1)
    mixed = (c[:, :3, :3] @ x.flatten(2)).view(x.shape)
    return mixed + c[:, :3, 3].view(-1, 3, 1, 1)


def _reflected(size: int, beyond: int, device: torch.device) -> Tensor:
    """Indices into `size` pixels for `beyond` more on each side, reflected as often as needed."""
    if size == 1:
        return torch.zeros(1 + 2 * beyond, dtype=torch.int64, device=device)
    last = size - 1
    return last - ((torch.arange(-beyond, size + beyond, device=device)).remainder(2 * last) - last).abs()
