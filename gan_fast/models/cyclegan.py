"""CycleGAN's networks: two ResNet generators and two PatchGAN critics, each pair one module.

    G = tanh o conv7 o up^k o (x + norm(conv3(relu(norm(conv3 x)))))^blocks o down^k o relu(norm(conv7))

down is a 3x3 convolution of stride 2 that doubles the width, up its transpose, each with norm and ReLU; norm is
instance norm, or nothing where it is "none"; 7x7 and residual convolutions see reflections beyond the border. k = 2; 9
blocks from 256 pixels, else 6. Source: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent
Adversarial Networks", 2017, section 4 and appendix 7.2; the generator is that of Johnson et al. 2016. Fully
convolutional: any H and W that 2^k divides. Without norms every residual branch begins at 0, as in Fixup (Zhang et al.
2019): otherwise nine blocks saturate the tanh.
"""

from __future__ import annotations

from torch import Tensor, nn

from gan_fast.models.convolution import Conv2d
from gan_fast.models.patch import PatchCritic, check_positive, init_weights, normed


class ResidualBlock(nn.Module):
    """`[N, C, H, W]` to the same shape."""

    def __init__(self, width: int, norm: str) -> None:
        super().__init__()

        def convolution() -> nn.Module:
            return Conv2d(width, width, 3, padding=1, padding_mode="reflect", bias=norm == "none")

        norms = normed(norm, width), normed(norm, width)
        self.branch = nn.Sequential(convolution(), norms[0], nn.ReLU(inplace=True), convolution(), norms[1])

    def begin_at_zero(self) -> None:
        last = self.branch[3]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.branch(x)
        return y


class ResnetGenerator(nn.Module):
    """Images `[N, C, H, W]` in [-1, 1] to images of the same shape; 2^downs divides H and W. `kernel` is the side of
    the first and the last convolution."""

    def __init__(self, channels: int, base_channels: int, blocks: int, downs: int, kernel: int, norm: str) -> None:
        super().__init__()
        bias = norm == "none"

        def block(convolution: nn.Module, width: int) -> list[nn.Module]:
            return [convolution, normed(norm, width), nn.ReLU(inplace=True)]

        width = base_channels
        first = nn.Conv2d(channels, width, kernel, padding=kernel // 2, padding_mode="reflect", bias=bias)
        layers = block(first, width)
        for _ in range(downs):
            layers += block(nn.Conv2d(width, 2 * width, 3, 2, 1, bias=bias), 2 * width)
            width *= 2
        layers += [ResidualBlock(width, norm) for _ in range(blocks)]
        for _ in range(downs):
            width //= 2
            layers += block(nn.ConvTranspose2d(2 * width, width, 3, 2, 1, output_padding=1, bias=bias), width)
        last = nn.Conv2d(width, channels, kernel, padding=kernel // 2, padding_mode="reflect")
        self.layers = nn.Sequential(*layers, last, nn.Tanh())
        init_weights(self, norm)
        if norm == "none":
            for layer in self.layers:
                if isinstance(layer, ResidualBlock):
                    layer.begin_at_zero()

    def forward(self, images: Tensor) -> Tensor:
        translated: Tensor = self.layers(images)
        return translated


class Generators(nn.Module):
    """Both directions: `a_to_b` and `b_to_a`."""

    def __init__(self, a_to_b: nn.Module, b_to_a: nn.Module) -> None:
        super().__init__()
        self.a_to_b, self.b_to_a = a_to_b, b_to_a


class Critics(nn.Module):
    """One for each domain: `of_a` and `of_b`."""

    def __init__(self, of_a: nn.Module, of_b: nn.Module) -> None:
        super().__init__()
        self.of_a, self.of_b = of_a, of_b


def build(
    channels: int = 3,
    *,
    base_channels: int = 64,
    blocks: int = 9,
    downs: int = 2,
    kernel: int = 7,
    critic_channels: int = 64,
    critic_layers: int = 3,
    norm: str = "instance",
    critic_norm: str = "instance",
) -> tuple[Generators, Critics]:
    """The two generators and the two critics, each as one module."""
    numbers = {"channels": channels, "base_channels": base_channels, "blocks": blocks, "kernel": kernel}
    check_positive(**numbers, critic_channels=critic_channels)
    if kernel % 2 == 0:
        raise ValueError(f"kernel must be odd, got {kernel}")
    generators = [ResnetGenerator(channels, base_channels, blocks, downs, kernel, norm) for _ in range(2)]
    critics = [PatchCritic(channels, critic_channels, critic_layers, critic_norm) for _ in range(2)]
    return Generators(*generators), Critics(*critics)
