"""The parts the zoo's critics are made of, and the critics that are more than a chain of layers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

CLASSES = 5


def conv(*args: Any, dims: int = 2, transposed: bool = False, **kwargs: Any) -> nn.Module:
    """A convolution that keeps the size of its input about as it is."""
    kinds = (nn.ConvTranspose1d, nn.ConvTranspose2d) if transposed else (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return _spread(kinds[dims - 1](*args, **kwargs))


def linear(*args: Any, **kwargs: Any) -> nn.Module:
    return _spread(nn.Linear(*args, **kwargs))


def _spread(layer: Any) -> Any:
    nn.init.kaiming_normal_(layer.weight, a=0.2)
    if layer.bias is not None:
        nn.init.normal_(layer.bias, std=0.3)
    return layer


def chain(*parts: nn.Module, shape: tuple[int, ...] = (3, 8, 8), zero: bool = False) -> nn.Sequential:
    """The parts, then a linear logit of what they return for images of `shape`; `zero` initialises it at zero."""
    body = nn.Sequential(*parts)
    with torch.no_grad():
        features = copy.deepcopy(body).eval()(torch.zeros(2, *shape)).flatten(1).shape[1]
    logit = linear(features, 1)
    if zero:
        nn.init.zeros_(logit.weight)
    return nn.Sequential(*parts, nn.Flatten(), logit)


class Residual(nn.Sequential):
    """x + f(x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Gate(nn.Module):
    """x times a learned number, which is zero at first."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.gate * x


class Apply(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Blur(nn.Module):
    """Half the size through a fixed depthwise filter."""

    def __init__(self) -> None:
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("taps", torch.outer(taps, taps))

    def forward(self, x: Tensor) -> Tensor:
        weight = self.taps.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        return F.conv2d(x, weight, stride=2, padding=1, groups=x.shape[1])


def r3gan(down: nn.Module, last_gain: float = 0.5) -> nn.Module:
    """R3GAN's critic, small: residual blocks of 1x1, grouped 3x3 and 1x1 convolutions; `last_gain` 0 is its start."""

    def block() -> nn.Module:
        last = conv(12, 6, 1, bias=False)
        with torch.no_grad():
            last.weight.mul_(last_gain)
        body = [conv(6, 12, 1, bias=False), Bias(12), nn.LeakyReLU(0.2, True)]
        body += [conv(12, 12, 3, 1, 1, groups=3, bias=False), Bias(12), nn.LeakyReLU(0.2, True), last]
        return Residual(*body)

    basis = conv(6, 6, 4, groups=6, bias=False)
    return nn.Sequential(
        conv(3, 6, 1), block(), down, conv(6, 6, 1, bias=False), block(), basis, nn.Flatten(), linear(6, 1)
    )


class Bias(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(0.1 * torch.randn(channels))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.bias.view(-1, 1, 1)


class Equalised(nn.Module):
    """A convolution whose weight is a parameter times a constant, as StyleGAN has it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, channels, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight / math.sqrt(9 * x.shape[1]), padding=1)


class SharedEinsum(nn.Module):
    """One weight in a convolution, in an einsum and in a penalty-free product."""

    def __init__(self) -> None:
        super().__init__()
        self.first = conv(3, 4, 3, 2, 1)
        self.weight = nn.Parameter(torch.randn(4, 4) / 2)
        self.logit = linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), 0.2)
        x = F.leaky_relu(F.conv2d(x, self.weight[:, :, None, None]), 0.2)
        x = torch.einsum("oi,nihw->nohw", self.weight, x)
        x = F.linear(x.movedim(1, -1), self.weight).movedim(-1, 1)
        return self.logit(F.leaky_relu(x, 0.2).flatten(1))


class CalledTwice(nn.Module):
    """One convolution at two depths."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu) -> None:
        super().__init__()
        self.first, self.twice, self.logit = conv(3, 4, 3, 2, 1), conv(4, 4, 3, 1, 1), linear(64, 1)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.first(x))
        x = x + self.activation(self.twice(self.activation(self.twice(x))))
        return self.logit(x.flatten(1))


class ScalarGain(nn.Module):
    """A critic's output times a learned number, plus another."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = chain(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2))
        self.gain, self.offset = nn.Parameter(torch.tensor(0.7)), nn.Parameter(torch.tensor(0.1))

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x) * self.gain + self.offset


class Gated(nn.Module):
    """x + g f(x), the learned g exactly zero at first: f has no influence on a logit and g has a gradient."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body, self.gate = conv(channels, channels, 3, 1, 1), Gate()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.gate(F.leaky_relu(self.body(x), 0.2))


class Projection(nn.Module):
    """psi(phi(x)) + <phi(x), e(label)>, e an embedding, or one followed by an MLP. Source: Miyato and Koyama 2018."""

    def __init__(self, mlp: bool = True) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv(3, 4, 4, 2, 1), nn.LeakyReLU(0.2), conv(4, 8, 4), nn.LeakyReLU(0.2), nn.Flatten()
        )
        self.logit, self.embedding = linear(8, 1), nn.Embedding(CLASSES, 8)
        self.mlp = nn.Sequential(linear(8, 6), nn.LeakyReLU(0.2), linear(6, 8)) if mlp else nn.Identity()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = self.features(x)
        return self.logit(x) + (x * self.mlp(self.embedding(labels))).sum(1, keepdim=True)


class LabelAdded(nn.Module):
    """A label network whose output is added to features: the penalty reaches it through no smooth layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last, self.embedding = conv(3, 4, 4, 2, 1), chain_tail(), nn.Embedding(CLASSES, 4)
        self.mlp = nn.Sequential(linear(4, 6), nn.LeakyReLU(0.2), linear(6, 4))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        return self.last(F.leaky_relu(self.first(x) + self.mlp(self.embedding(labels))[:, :, None, None], 0.2))


def chain_tail() -> nn.Module:
    return chain(conv(4, 4, 3, 1, 1), nn.LeakyReLU(0.2), shape=(4, 4, 4))


class ExtraImage(nn.Module):
    """The image beside a second one, as in pix2pix."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = chain(
            conv(6, 4, 4, 2, 1), nn.LeakyReLU(0.2, True), conv(4, 4, 3), nn.LeakyReLU(0.2), shape=(6, 8, 8)
        )

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        return self.critic(torch.cat([x, condition], 1))


class TimeEmbedded(nn.Module):
    """A critic of noisy images that is told the time: a sinusoidal embedding, a smooth MLP, SiLU features (DDGAN)."""

    def __init__(self, image: bool = False) -> None:
        super().__init__()
        self.first, self.second = conv(6 if image else 3, 4, 3, 1, 1), conv(4, 4, 3, 2, 1)
        self.time = nn.Sequential(linear(6, 8), nn.SiLU(), linear(8, 8), nn.SiLU())
        self.shift, self.logit = linear(8, 4), linear(64, 1)

    def forward(self, x: Tensor, t: Tensor, condition: Tensor | None = None) -> Tensor:
        angles = t[:, None] * torch.tensor([1.0, 0.3, 0.1], dtype=t.dtype, device=t.device)
        embedded = self.time(torch.cat([angles.sin(), angles.cos()], 1))
        x = F.silu(self.first(x if condition is None else torch.cat([x, condition], 1)))
        x = F.silu(self.second(x) + self.shift(embedded)[:, :, None, None])
        return self.logit(x.flatten(1))


class Attention(nn.Module):
    """Self-attention over the pixels of each image."""

    def __init__(self, channels: int, fused: bool = False) -> None:
        super().__init__()
        self.qkv, self.out, self.fused = conv(channels, 3 * channels, 1), conv(channels, channels, 1), fused

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (part.flatten(2).transpose(1, 2) for part in self.qkv(x).chunk(3, 1))
        if self.fused:
            # The fused kernels have no double backward.
            with nn.attention.sdpa_kernel(nn.attention.SDPBackend.MATH):
                y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(1, 2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        return x + self.out(y.transpose(1, 2).reshape(x.shape))


class Transformer(nn.Module):
    """Patches, layer norm, attention and a GELU MLP on `[N, tokens, channels]`."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.place = conv(3, 6, 4, 4), nn.Parameter(0.3 * torch.randn(4, 6))
        self.norm, self.qkv, self.out = nn.LayerNorm(6), linear(6, 18), linear(6, 6)
        self.mlp = nn.Sequential(nn.LayerNorm(6), linear(6, 12), nn.GELU(), linear(12, 6))
        self.logit = linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.place
        q, k, v = self.qkv(self.norm(x)).chunk(3, -1)
        x = x + self.out((q @ k.transpose(1, 2) / 6**0.5).softmax(-1) @ v)
        return self.logit((x + self.mlp(x)).mean(1)).squeeze(1)


def eval_batch_norm(channels: int) -> nn.Module:
    """Batch norm with the running statistics: it does not mix."""
    norm = nn.BatchNorm2d(channels)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm.eval()


def pixel_norm(x: Tensor) -> Tensor:
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def maxout(x: Tensor) -> Tensor:
    return x.unflatten(1, (2, -1)).amax(2)


def clamp(x: Tensor) -> Tensor:
    return x.clamp(-0.5, 0.8)


class Cubic(torch.autograd.Function):
    """x + x^3 / 50 with its double backward, from Python."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x + x**3 / 50

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * (1 + 3 * x**2 / 50)


class BilinearLogit(nn.Module):
    """o = a^T W b of two linear maps of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = conv(3, 4, 4, 4), linear(16, 5), linear(16, 3)
        self.bilinear = nn.Bilinear(5, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), 0.2).flatten(1)
        return self.bilinear(self.left(x), self.right(x))


def transposed() -> nn.Module:
    odd = conv(6, 3, 3, 2, 1, 1, groups=3, dilation=2, transposed=True)
    return chain(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), conv(4, 6, (4, 3), (2, 1), 1, transposed=True), nn.ReLU(), odd)


def geometry() -> nn.Module:
    """Strides that leave a rest, dilations, unequal sides, strings for paddings, groups that widen."""
    first, second = conv(3, 6, (3, 2), (2, 3), (2, 1)), conv(6, 12, 3, padding="same", dilation=2, groups=3)
    third, fourth = conv(12, 4, 2, padding="valid"), conv(4, 8, (1, 3), padding="same", groups=4)
    return chain(first, nn.LeakyReLU(0.2), second, nn.LeakyReLU(0.1), third, nn.ReLU(), fourth)


def padded(mode: str) -> nn.Module:
    return conv(4, 4, 3, 1, 1, padding_mode=mode)


def volumes() -> nn.Module:
    return chain(
        conv(2, 4, 3, 1, 1, dims=3), nn.LeakyReLU(0.2), nn.AvgPool3d(2), conv(4, 4, 2, dims=3), shape=(2, 4, 4, 4)
    )


def unfolded(x: Tensor) -> Tensor:
    return F.fold(F.unfold(x, 3, padding=1, stride=2).relu(), x.shape[2:], 2, stride=2, padding=0)[:, :, ::2]


def audio() -> nn.Module:
    """Strided, dilated and grouped 1-D convolutions, as HiFi-GAN's scale critic has them."""
    parts = [
        conv(1, 4, 5, 1, 2, dims=1),
        nn.LeakyReLU(0.1),
        conv(4, 8, 7, 4, 3, groups=4, dims=1),
        nn.LeakyReLU(0.1, True),
    ]
    parts += [conv(8, 8, 3, 1, 2, 2, dims=1), nn.LeakyReLU(0.1), nn.AvgPool1d(4, 2, 2), conv(8, 1, 3, 1, 1, dims=1)]
    return chain(*parts, shape=(1, 64))


def audio_transposed() -> nn.Module:
    up = conv(4, 2, 4, 2, 1, dims=1, transposed=True)
    return chain(
        conv(1, 4, 5, 4, 2, dims=1), nn.LeakyReLU(0.2), up, nn.LeakyReLU(0.2), conv(2, 1, 3, dims=1), shape=(1, 64)
    )


def mlp() -> nn.Module:
    """For points in the plane."""
    return nn.Sequential(linear(2, 8), nn.LeakyReLU(0.2), linear(8, 8), nn.ReLU(), linear(8, 1))


def pointwise() -> nn.Module:
    """Linear layers on `[N, 1, 16, 4]` and `[N, 16, 6]`."""
    return chain(
        Apply(lambda x: x.unflatten(2, (16, 4))),
        linear(4, 6),
        nn.LeakyReLU(0.2),
        Apply(lambda x: x.squeeze(1)),
        linear(6, 5),
        shape=(1, 64),
    )


def dropout() -> nn.Module:
    return chain(
        conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), nn.Dropout(0.3), conv(4, 8, 3, 2, 1), nn.ReLU(), nn.Dropout(0.5)
    )


def noisy(x: Tensor) -> Tensor:
    return x + 0.3 * torch.randn_like(x)


class Checkpointed(nn.Module):
    """Two blocks whose activations are computed again in the backward."""

    def __init__(self, activation: Callable[[], nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 4, 3, 1, 1), activation())
        self.second = nn.Sequential(conv(4, 4, 3, 2, 1), activation(), conv(4, 4, 3, 1, 1), nn.LeakyReLU(0.2))
        self.logit = linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(self.first, x, use_reentrant=False)
        return self.logit(checkpoint(self.second, x, use_reentrant=False).flatten(1))


class Unused(nn.Module):
    """A parameter that no logit depends on, and one that only a product with zero reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.critic = chain(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2))
        self.never, self.cancelled = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x) + 0 * self.cancelled


class DetachedBranch(nn.Module):
    """Features that are computed without a graph and multiply those that have one."""

    def __init__(self) -> None:
        super().__init__()
        self.guide, self.first, self.logit = conv(3, 4, 3, 2, 1), conv(3, 4, 3, 2, 1), linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            guide = self.guide(x).tanh()
        return self.logit((guide * F.leaky_relu(self.first(x), 0.2)).flatten(1))


class Shaped(nn.Module):
    """Logits `[N, *trailing]`."""

    def __init__(self, trailing: tuple[int, ...]) -> None:
        super().__init__()
        self.critic, self.trailing = chain(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2)), trailing

    def forward(self, x: Tensor) -> Tensor:
        return self.critic(x).reshape(len(x), *self.trailing)
