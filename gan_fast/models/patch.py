"""PatchGAN: a critic that scores overlapping patches, a map of logits instead of one.

    D = conv4 s1 o (lrelu(norm(conv4 s1))) o (lrelu(norm(conv4 s2)))^(layers - 1) o lrelu(conv4 s2)

Convolutions are 4x4 with padding 1; channels are b, 2b, 4b, 8b, at most 8b. A logit sees 70x70 pixels with 3 layers, 34
with 2, 16 with 1; with 0 this is the paper's PixelGAN, three 1x1 convolutions: one pixel. Norm is instance norm, or
nothing where it is "none", so samples do not mix. Source: Isola et al., "Image-to-Image Translation with Conditional
Adversarial Networks", 2017, section 3.2.2 and appendix 6.1.2; without batch statistics as in Zhu et al. 2017.
"""

from __future__ import annotations

import math

from torch import Tensor, nn

LEAK = 0.2
# Section 6.2 of Isola et al.: weights begin as N(0, 0.02).
INIT_STD = 0.02
DEEPEST = 3


def normed(norm: str, width: int) -> nn.Module:
    """The norm called "instance" or "none"; ValueError for another."""
    if norm not in ("instance", "none"):
        raise ValueError(f"norm must be 'instance' or 'none', got {norm!r}")
    return nn.InstanceNorm2d(width) if norm == "instance" else nn.Identity()


def init_weights(network: nn.Module, norm: str = "instance") -> None:
    """Every convolution N(0, 0.02); without a norm N(0, 2 / inputs) (He et al. 2015), the last one N(0, 1 / inputs),
    inputs being how many numbers meet in one of the output. Biases 0."""
    layers = [layer for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))]
    for layer in layers:
        std = INIT_STD
        if norm == "none":
            inputs: float = layer.in_channels * math.prod(layer.kernel_size)
            if isinstance(layer, nn.ConvTranspose2d):
                inputs /= math.prod(layer.stride)
            std = math.sqrt((1 if layer is layers[-1] else 2) / inputs)
        nn.init.normal_(layer.weight, 0.0, std)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


def default_layers(height: int, width: int) -> int:
    """3, the paper's 70x70 patches, or what leaves at least two patches each way: 2 below 32 pixels, 1 below 16."""
    layers = DEEPEST
    while layers > 1 and min(height, width) >> layers < 4:
        layers -= 1
    return layers


class PatchCritic(nn.Module):
    """Images `[N, C, H, W]` to logits `[N, 1, H / 2^layers - 2, W / 2^layers - 2]`, or of each pixel for 0 layers."""

    def __init__(self, channels: int, base_channels: int, layers: int, norm: str = "instance") -> None:
        super().__init__()
        strides, kernel = ((2,) * layers + (1,), (4, 1)) if layers else ((1, 1), (1, 0))
        blocks: list[nn.Module] = []
        width = channels
        for i, stride in enumerate(strides):
            wider = base_channels << min(i, 3)
            # A norm takes away every constant, a bias too.
            blocks.append(nn.Conv2d(width, wider, kernel[0], stride, kernel[1], bias=not i or norm == "none"))
            blocks += [normed(norm, wider)] if i else []
            blocks.append(nn.LeakyReLU(LEAK))
            width = wider
        self.layers = nn.Sequential(*blocks, nn.Conv2d(width, 1, kernel[0], 1, kernel[1]))
        init_weights(self, norm)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.layers(images)
        return logits


def check_positive(**values: int) -> None:
    """ValueError that names the first of `values` that is not a whole number from 1."""
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive whole number, got {value!r}")
