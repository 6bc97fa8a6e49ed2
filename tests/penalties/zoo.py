"""Small critics of every kind: what the exact critic step must serve, or refuse.

A case is a builder of a critic, the shape of its images, its further inputs and an augmentation. In `CASES` sample i's
logit is a function of what belongs to sample i alone; in `MIXING` it is not, if only through a statistic that has no
gradient. The networks are as small as they can be with the part that matters in them: a step in double precision takes
milliseconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, spectral_norm

from gan_fast import penalties
from penalties import augmentations, layers, mixers
from penalties.layers import Apply, Gate, Residual, chain, conv, linear

IMAGE = (3, 8, 8)
AUDIO = (1, 64)


@dataclasses.dataclass(frozen=True)
class Case:
    """A critic and how it is called.

    Args:
        joint: the critic or the augmentation draws random numbers, one stream for the batch, so that only one call on
            cat(real, fake) draws what the shared plan draws.
        debts: the fields of `losses.Debts` that the shared plan must report above zero.
        lean: every weight is one of a convolution or a linear layer under piecewise linear activations, so each is
            deferred once, is reached by the penalty, and never again.
    """

    build: Callable[[], nn.Module]
    shape: tuple[int, ...] = IMAGE
    inputs: tuple[str, ...] = ()
    augment: Callable[[Tensor], Tensor] | None = None
    joint: bool = False
    debts: tuple[str, ...] = ()
    lean: bool = False

    def critic(self, seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
        """A new critic; the same values for the same seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return self.build().to(dtype)

    def images(self, count: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
        """`[count, *shape]` standard normal."""
        generator = torch.Generator().manual_seed(1000 + seed)
        return torch.randn(count, *self.shape, generator=generator, dtype=torch.float64).to(dtype)

    def kwargs(self, count: int, seed: int, dtype: torch.dtype = torch.float64) -> dict[str, Tensor]:
        """The further inputs: `labels` are `[N]` integers, `t` `[N]` and `condition` `[N, C, H, W]` floats."""
        generator = torch.Generator().manual_seed(2000 + seed)
        made = {
            "labels": torch.randint(0, layers.CLASSES, (count,), generator=generator),
            "t": 10 * torch.rand(count, generator=generator, dtype=torch.float64).to(dtype),
            "condition": torch.randn(count, *self.shape, generator=generator, dtype=torch.float64).to(dtype),
        }
        return {name: made[name] for name in self.inputs}


def strided(norm: Callable[[int], nn.Module], activation: Callable[[], nn.Module], bias: bool = True) -> nn.Module:
    """DCGAN's critic at 8x8: strided 4x4 convolutions, then one that covers the image."""
    first, second, last = conv(3, 4, 4, 2, 1, bias=bias), conv(4, 8, 4, 2, 1, bias=bias), conv(8, 1, 2, bias=bias)
    return nn.Sequential(first, activation(), second, norm(8), activation(), last)


def dcgan(bias: bool = True, activation: Callable[[], nn.Module] | None = None) -> nn.Module:
    return strided(lambda channels: nn.Identity(), activation or (lambda: nn.LeakyReLU(0.2, inplace=True)), bias)


def leaky() -> nn.Module:
    return nn.LeakyReLU(0.2)


def between(*middle: nn.Module) -> nn.Module:
    """The parts between a first convolution to `[N, 4, 8, 8]` and a linear logit."""
    return chain(conv(3, 4, 3, 1, 1), *middle)


def twice(activation: Callable[[], nn.Module]) -> nn.Module:
    return between(activation(), conv(4, 4, 3, 2, 1), activation())


def pooled(*pools: nn.Module) -> nn.Module:
    return between(leaky(), *pools, conv(4, 4, 3, 1, 1), leaky())


def audio(*middle: nn.Module) -> nn.Module:
    return chain(conv(1, 4, 5, 2, 2, dims=1), *middle, shape=AUDIO)


def normalised(norm: Callable[[nn.Module], nn.Module]) -> nn.Module:
    """Every weight through `norm`."""
    first, second, last = norm(conv(3, 4, 3, 2, 1)), norm(conv(4, 8, 3, 2, 1)), norm(linear(32, 1))
    return nn.Sequential(first, leaky(), second, leaky(), nn.Flatten(), last)


def frozen(*indices: int) -> nn.Module:
    critic = dcgan()
    for index in indices:
        critic[index].requires_grad_(False)
    return critic


def hooked() -> nn.Module:
    """Forward hooks that replace what a layer returns and what it is given."""
    critic = between(leaky(), conv(4, 4, 3, 1, 1), leaky())
    critic[0].register_forward_hook(lambda module, args, output: output * 1.5)
    critic[2].register_forward_pre_hook(lambda module, args: (args[0] - args[0].mean((1, 2, 3), keepdim=True),))
    return critic


DEFERRED, SWEPT, REENTERED = ("deferred",), ("deferred", "swept"), ("deferred", "reentered")

CASES: dict[str, Case] = {
    # strided convolutions
    "dcgan": Case(dcgan, debts=DEFERRED, lean=True),
    "dcgan no biases": Case(lambda: dcgan(bias=False), debts=DEFERRED, lean=True),
    "dcgan relu": Case(lambda: dcgan(activation=lambda: nn.ReLU(inplace=True)), debts=DEFERRED, lean=True),
    "dcgan out of place": Case(lambda: dcgan(activation=leaky), debts=DEFERRED, lean=True),
    "dcgan batch norm in eval": Case(lambda: strided(layers.eval_batch_norm, leaky), debts=DEFERRED),
    # residual
    "r3gan": Case(lambda: layers.r3gan(nn.Upsample(scale_factor=0.5, mode="bilinear")), debts=DEFERRED),
    "r3gan filter": Case(lambda: layers.r3gan(layers.Blur()), debts=DEFERRED),
    "r3gan at start": Case(lambda: layers.r3gan(layers.Blur(), last_gain=0.0), debts=DEFERRED),
    "logit zero": Case(lambda: chain(conv(3, 4, 3, 1, 1), leaky(), zero=True), debts=DEFERRED),
    # weights that are functions of parameters
    "spectral norm": Case(lambda: normalised(parametrizations.spectral_norm), debts=DEFERRED),
    "spectral norm hook": Case(lambda: normalised(spectral_norm)),
    "weight norm": Case(lambda: normalised(parametrizations.weight_norm), debts=DEFERRED),
    "equalised": Case(lambda: between(layers.Equalised(4), leaky()), debts=DEFERRED),
    "shared by einsum": Case(layers.SharedEinsum, debts=DEFERRED),
    "shared by calls": Case(layers.CalledTwice, debts=DEFERRED),
    "shared by calls, smooth": Case(lambda: layers.CalledTwice(torch.tanh), debts=REENTERED),
    "scalar gain": Case(layers.ScalarGain, debts=DEFERRED),
    "gate at zero": Case(lambda: between(leaky(), layers.Gated(4)), debts=DEFERRED),
    # conditions
    "projection": Case(layers.Projection, inputs=("labels",), debts=SWEPT),
    "projection embedding": Case(lambda: layers.Projection(mlp=False), inputs=("labels",), debts=DEFERRED),
    "label added": Case(layers.LabelAdded, inputs=("labels",), debts=SWEPT),
    "extra image": Case(layers.ExtraImage, inputs=("condition",), debts=DEFERRED, lean=True),
    "time": Case(layers.TimeEmbedded, inputs=("t",), debts=REENTERED),
    "extra image and time": Case(lambda: layers.TimeEmbedded(True), inputs=("condition", "t"), debts=REENTERED),
    # attention and norms
    "attention": Case(lambda: between(layers.Attention(4), leaky()), debts=DEFERRED),
    "sdpa": Case(lambda: between(layers.Attention(4, fused=True), leaky()), debts=DEFERRED),
    "attention and layer norm": Case(layers.Transformer, debts=REENTERED),
    "group norm": Case(lambda: between(nn.GroupNorm(2, 4), leaky()), debts=REENTERED),
    "instance norm": Case(lambda: between(nn.InstanceNorm2d(4, affine=True), leaky()), debts=REENTERED),
    "layer norm": Case(lambda: between(nn.LayerNorm([4, 8, 8]), leaky()), debts=REENTERED),
    "pixel norm": Case(lambda: between(Apply(layers.pixel_norm), leaky()), debts=REENTERED),
    # activations
    "tanh": Case(lambda: twice(nn.Tanh), debts=REENTERED),
    "gelu": Case(lambda: twice(nn.GELU), debts=REENTERED),
    "silu in place": Case(lambda: twice(lambda: nn.SiLU(inplace=True)), debts=REENTERED),
    "softplus and elu": Case(lambda: between(nn.Softplus(), conv(4, 4, 3, 1, 1), nn.ELU()), debts=REENTERED),
    "prelu": Case(lambda: twice(lambda: nn.PReLU(4)), debts=DEFERRED),
    "clamp": Case(lambda: twice(lambda: Apply(layers.clamp)), debts=DEFERRED),
    "relu6 and hardtanh": Case(lambda: between(nn.ReLU6(inplace=True), conv(4, 4, 3), nn.Hardtanh()), debts=DEFERRED),
    "maxout": Case(lambda: between(Apply(layers.maxout)), debts=DEFERRED),
    "custom function": Case(lambda: twice(lambda: Apply(layers.Cubic.apply)), debts=REENTERED),
    "bilinear": Case(layers.BilinearLogit, debts=DEFERRED),
    # resampling and geometry
    "max pool": Case(lambda: pooled(nn.MaxPool2d(2), nn.MaxPool2d(3, 2, 1)), debts=DEFERRED),
    "max pool dilated": Case(lambda: pooled(nn.MaxPool2d(2, 2, dilation=2, ceil_mode=True)), debts=DEFERRED),
    "average pool": Case(lambda: pooled(nn.AvgPool2d(2)), debts=DEFERRED, lean=True),
    "average pool overlapping": Case(lambda: pooled(nn.AvgPool2d(3, 2, 1)), debts=DEFERRED),
    "average pool odd": Case(lambda: pooled(nn.AvgPool2d(3, 2, 1, True, False), nn.AvgPool2d((2, 1), (1, 2)))),
    "average pool divisor": Case(lambda: pooled(nn.AvgPool2d(2, divisor_override=3)), debts=DEFERRED),
    "adaptive pools": Case(lambda: pooled(nn.AdaptiveAvgPool2d(3), nn.AdaptiveMaxPool2d(2)), debts=DEFERRED),
    "global pool": Case(lambda: between(leaky(), nn.AdaptiveAvgPool2d(1)), debts=DEFERRED),
    "pixel shuffle": Case(lambda: between(nn.PixelUnshuffle(2), conv(16, 8, 1), leaky(), nn.PixelShuffle(2))),
    "transposed": Case(layers.transposed, debts=DEFERRED),
    "geometry": Case(layers.geometry, debts=DEFERRED),
    "padding modes": Case(lambda: between(leaky(), layers.padded("reflect"), leaky(), layers.padded("circular"))),
    "volumes": Case(layers.volumes, (2, 4, 4, 4)),
    "unfold": Case(lambda: between(Apply(layers.unfolded), leaky()), debts=DEFERRED),
    # audio
    "audio": Case(layers.audio, AUDIO, debts=DEFERRED),
    "audio pools": Case(lambda: audio(leaky(), nn.AvgPool1d(3, 2, 1), nn.MaxPool1d(2), conv(4, 4, 3, dims=1)), AUDIO),
    "audio transposed": Case(layers.audio_transposed, AUDIO, debts=DEFERRED),
    # linear
    "linear": Case(lambda: nn.Sequential(nn.Flatten(), linear(192, 1))),
    "mlp": Case(layers.mlp, (2,), debts=DEFERRED, lean=True),
    "linear on points": Case(layers.pointwise, AUDIO, debts=DEFERRED),
    # random
    "dropout": Case(layers.dropout, joint=True, debts=DEFERRED),
    "dropout of maps": Case(lambda: pooled(nn.Dropout2d(0.3)), joint=True, debts=DEFERRED),
    "instance noise": Case(lambda: between(Apply(layers.noisy), leaky()), joint=True, debts=DEFERRED),
    # augmentation
    "ada": Case(dcgan, augment=augmentations.ada, joint=True, debts=DEFERRED),
    "ada, smooth critic": Case(lambda: twice(nn.Tanh), augment=augmentations.ada, joint=True, debts=REENTERED),
    "diffaugment": Case(dcgan, augment=augmentations.diff_augment, joint=True, debts=DEFERRED),
    "fixed warp": Case(dcgan, augment=augmentations.fixed_warp, debts=DEFERRED),
    "smooth augmentation": Case(dcgan, augment=augmentations.smooth_colour, debts=DEFERRED),
    # what training code does to a critic
    "checkpointed": Case(layers.Checkpointed, debts=DEFERRED),
    "checkpointed smooth": Case(lambda: layers.Checkpointed(nn.Tanh), debts=REENTERED),
    "checkpointed dropout": Case(lambda: layers.Checkpointed(lambda: nn.Dropout(0.3)), joint=True, debts=DEFERRED),
    "frozen first": Case(lambda: frozen(0), debts=DEFERRED),
    "frozen middle": Case(lambda: frozen(2), debts=DEFERRED),
    "frozen but the last": Case(lambda: frozen(0, 2), debts=DEFERRED),
    "unused parameter": Case(layers.Unused, debts=DEFERRED),
    "hooks": Case(hooked, debts=DEFERRED),
    "branch without graph": Case(layers.DetachedBranch, debts=DEFERRED),
    # shapes of logits
    "logits [N]": Case(lambda: layers.Shaped(())),
    "logits [N, 1]": Case(lambda: layers.Shaped((1,))),
    "logits [N, 1, 1, 1]": Case(lambda: layers.Shaped((1, 1, 1))),
}


MIXING: dict[str, Case] = {
    "batch norm": Case(lambda: strided(nn.BatchNorm2d, leaky)),
    "batch norm, gate at zero": Case(lambda: between(Residual(conv(4, 4, 1), nn.BatchNorm2d(4), Gate()))),
    "batch norm, scale zero": Case(lambda: between(Residual(mixers.zero_batch_norm(4), leaky()))),
    "batch norm, convolution zero": Case(lambda: between(Residual(nn.BatchNorm2d(4), leaky(), mixers.zero_conv(4)))),
    "batch norm, logit zero": Case(lambda: chain(conv(3, 4, 3, 1, 1), nn.BatchNorm2d(4), leaky(), zero=True)),
    "batch norm of audio": Case(lambda: audio(nn.BatchNorm1d(4), leaky()), AUDIO),
    "batch norm, checkpointed": Case(lambda: layers.Checkpointed(lambda: nn.BatchNorm2d(4))),
    "minibatch stddev": Case(lambda: between(leaky(), penalties.MinibatchStdDev(), conv(5, 4, 3), leaky())),
    "stddev by hand": Case(lambda: between(leaky(), mixers.Deviation(), conv(5, 4, 3), leaky())),
    "stddev behind zeros": Case(mixers.deviation_behind_zero),
    "stddev of fours": Case(lambda: between(leaky(), mixers.DeviationOfFours())),
    "minibatch discrimination": Case(mixers.PackagedDiscrimination),
    "discrimination by hand": Case(mixers.Discrimination),
    "attention over samples": Case(lambda: between(Apply(mixers.cross_attention), leaky())),
    "softmax over samples": Case(lambda: between(nn.Softmax(0))),
    "rolled": Case(lambda: between(leaky(), Apply(mixers.rolled))),
    "rolled behind a gate": Case(lambda: between(leaky(), Residual(Apply(mixers.rolled), Gate()))),
    "convolved over samples": Case(lambda: between(leaky(), Apply(mixers.neighbours))),
    "reordered": Case(lambda: between(leaky(), Apply(mixers.by_brightness))),
    "centred logits": Case(lambda: mixers.OnLogits(lambda o: o - o.mean())),
    "logits centred a little": Case(lambda: mixers.OnLogits(lambda o: o - 1e-5 * o.mean())),
    "logits centred, detached": Case(lambda: mixers.OnLogits(lambda o: o - o.detach().mean())),
    "scaled by the batch, detached": Case(lambda: between(leaky(), Apply(mixers.scaled_by_batch))),
    "augmentation mixes": Case(dcgan, augment=augmentations.mixup),
    "labels mix": Case(mixers.LabelMixing, inputs=("labels",)),
}
