"""pix2pix's networks: a U-Net generator, and a PatchGAN critic that sees input and output together.

    encoder   e_1 = conv(x),  e_i = norm(conv(lrelu(e_(i-1))))       conv 4x4, stride 2; widths b, 2b, 4b, 8b, 8b, ...
    decoder   d_n = e_n,      d_i = drop(norm(deconv(relu([d_(i+1), e_(i+1)]))))     and tanh at the end

The innermost e_n has no norm, which would leave nothing of a 1x1 map; the skip joins channels. The first three decoder
layers drop half of their values: that is the noise z of the paper, and the caller draws it. Norm is instance norm,
which is the paper's batch norm at its batch of 1. Source: Isola et al., "Image-to-Image Translation with Conditional
Adversarial Networks", 2017, section 3.2, appendix 6.1.1 and its errata.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast.augment.draws import Draws
from gan_fast.models.patch import LEAK, PatchCritic, check_positive, init_weights

DEEPEST = 8
_DROPPED_LAYERS = 3


def default_depth(height: int, width: int) -> int:
    """How often both sides can be halved, at most 8 times."""
    depth = 0
    while depth < DEEPEST and (height | width) % (2 << depth) == 0:
        depth += 1
    return depth


class UnetGenerator(nn.Module):
    """Images `[N, C, H, W]` in [-1, 1] to images of the same shape; 2^depth divides H and W."""

    def __init__(self, channels: int, base_channels: int, depth: int) -> None:
        super().__init__()
        widths = [base_channels << min(i, 3) for i in range(depth)]
        self.encoder = nn.ModuleList()
        self.decoder = nn.ModuleList()
        for i, width in enumerate(widths):
            normed = 0 < i < depth - 1
            self.encoder.append(nn.Conv2d(widths[i - 1] if i else channels, width, 4, 2, 1, bias=not normed))
        for i in reversed(range(depth)):
            both = widths[i] if i == depth - 1 else 2 * widths[i]
            self.decoder.append(nn.ConvTranspose2d(both, widths[i - 1] if i else channels, 4, 2, 1, bias=i == 0))
        init_weights(self)

    def forward(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """`draws` gives what is dropped; without it nothing is."""
        encoded: list[Tensor] = []
        x = images
        for i, layer in enumerate(self.encoder):
            x = layer(F.leaky_relu(x, LEAK) if i else x)
            if 0 < i < len(self.encoder) - 1:
                x = F.instance_norm(x)
            encoded.append(x)
        for i, layer in enumerate(self.decoder):
            if i:
                x = torch.cat([x, encoded[-1 - i]], 1)
            x = layer(F.relu(x))
            if i == len(self.decoder) - 1:
                break
            x = F.instance_norm(x)
            if draws is not None and i < _DROPPED_LAYERS:
                kept = draws.uniform(*x.shape[1:]) < 0.5
                x = x * (2 * kept).to(x.dtype)
        return torch.tanh(x)


def build(
    channels: int = 3,
    *,
    base_channels: int = 64,
    depth: int = 8,
    critic_channels: int = 64,
    critic_layers: int = 3,
) -> tuple[UnetGenerator, PatchCritic]:
    """The generator, and the critic of input and output, `[N, 2 C, H, W]`."""
    numbers = {"channels": channels, "base_channels": base_channels, "depth": depth}
    check_positive(**numbers, critic_channels=critic_channels)
    return UnetGenerator(channels, base_channels, depth), PatchCritic(2 * channels, critic_channels, critic_layers)
