"""Layers and critics in which a sample's logit depends on the other samples of its batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import penalties
from penalties.layers import CLASSES, chain, conv, linear


def zero_batch_norm(channels: int) -> nn.Module:
    """Batch norm whose scale is zero: at the initial values no logit depends on it."""
    norm = nn.BatchNorm2d(channels)
    nn.init.zeros_(norm.weight)
    return norm


def zero_conv(channels: int) -> nn.Module:
    layer = conv(channels, channels, 1)
    nn.init.zeros_(layer.weight)
    return layer


def deviation(x: Tensor) -> Tensor:
    """x `[N, C, H, W]` and a channel with its mean standard deviation over the batch. Source: Karras et al. 2018."""
    spread = (x.var(0, unbiased=False) + 1e-8).sqrt().mean()
    return torch.cat([x, spread.expand(len(x), 1, *x.shape[2:])], 1)


class DeviationOfFours(nn.Module):
    """Deviation within groups of four where the batch divides so, otherwise none: it mixes in some batches."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) % 4:
            return torch.cat([x, x.new_zeros(len(x), 1, *x.shape[2:])], 1)
        groups = x.unflatten(0, (4, -1))
        spread = (groups.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
        return torch.cat([x, spread.repeat(4)[:, None, None, None].expand(-1, 1, *x.shape[2:])], 1)


def deviation_behind_zero() -> nn.Module:
    """The deviation's channel meets weights that are exactly zero."""
    critic = chain(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2), Deviation(), conv(5, 4, 3, 1, 1), nn.LeakyReLU(0.2))
    with torch.no_grad():
        critic[3].weight[:, 4].zero_()
    return critic


class Deviation(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return deviation(x)


class Discrimination(nn.Module):
    """Features beside sums of exp(-distance) to the other samples. Source: Salimans et al. 2016."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.kernels, self.logit = conv(3, 4, 4, 4), nn.Parameter(torch.randn(16, 3, 2) / 8), linear(19, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.first(x), 0.2).flatten(1)
        projected = torch.einsum("nf,fbc->nbc", x, self.kernels)
        distances = (projected[:, None] - projected[None]).abs().sum(3)
        return self.logit(torch.cat([x, torch.exp(-distances).sum(1)], 1))


class PackagedDiscrimination(nn.Module):
    """The same by `penalties.MinibatchDiscrimination`."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(conv(3, 4, 4, 4), nn.LeakyReLU(0.2), nn.Flatten())
        self.layer, self.logit = penalties.MinibatchDiscrimination(16, 3, 2), linear(19, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.logit(self.layer(self.first(x)))


def cross_attention(x: Tensor) -> Tensor:
    """Attention from each sample to all samples."""
    tokens = x.flatten(1)
    return x + ((tokens @ tokens.t() / tokens.shape[1]).softmax(1) @ tokens).view_as(x)


def rolled(x: Tensor) -> Tensor:
    return x + 0.5 * x.roll(1, 0)


def neighbours(x: Tensor) -> Tensor:
    """A convolution along the batch axis."""
    return F.conv1d(x.flatten(1).t()[:, None], x.new_tensor([[[0.2, 0.6, 0.2]]]), padding=1)[:, 0].t().view_as(x)


def by_brightness(x: Tensor) -> Tensor:
    """The samples in another order."""
    return x[x.flatten(1).sum(1).argsort()]


def scaled_by_batch(x: Tensor) -> Tensor:
    """Divided by a statistic of the batch through which no gradient flows."""
    return x / x.detach().std()


class OnLogits(nn.Module):
    """A function of the logits of a batch."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.critic, self.function = chain(conv(3, 4, 3, 2, 1), nn.LeakyReLU(0.2)), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.critic(x))


class LabelMixing(nn.Module):
    """<phi(x_i), e(label_i) - mean_j e(label_j)>: what mixes is no function of the images."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(conv(3, 4, 4, 4), nn.LeakyReLU(0.2), nn.Flatten())
        self.embedding = nn.Embedding(CLASSES, 16)

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        embedded = self.embedding(labels)
        return (self.features(x) * (embedded - embedded.mean(0))).sum(1)


class Switched(nn.Module):
    """Centres its logits in train mode, or where it is told to by `pooled`; `middle` may be replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.middle, self.logit = conv(3, 4, 3, 2, 1), nn.Identity(), linear(64, 1)
        self.centred_in_training = False

    def forward(self, x: Tensor, pooled: bool = False) -> Tensor:
        logits = self.logit(self.middle(F.leaky_relu(self.first(x), 0.2)).flatten(1))
        return logits - logits.mean() if pooled or (self.centred_in_training and self.training) else logits
