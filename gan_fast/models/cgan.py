"""Class-conditional networks: G: (z, y) -> samples;  D: (x, y) -> logits [N];  y one-hot [N, classes]. Two ways:

    concat       G(z, y) = g([z, y])        D(x, y) = d([x, y])       for convolutions y is `classes` constant planes
    projection   G    h -> (A y) norm(h) + B y   in front of every ReLU: gain and bias belong to the class
                 D(x, y) = psi(phi(x)) + (V y)^T phi(x)

g, d, phi and psi are the layers of `dcgan` or `mlp`; psi is the critic's last layer and phi all before it. norm is
batch normalisation, or none; V has spectral normalisation where the other layers have it.

Sources: Mirza and Osindero, "Conditional Generative Adversarial Nets", 2014, section 3.2 ("feeding y into both the
discriminator and generator as additional input layer"); Miyato and Koyama, "cGANs with Projection Discriminator",
ICLR 2018, equation 3 (there phi is summed over pixels, and both networks are residual); Dumoulin et al., "A Learned
Representation for Artistic Style", ICLR 2017, equation 5 (conditional normalisation).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from gan_fast.models import dcgan, mlp

CONDITIONINGS = ("projection", "concat")
NETWORKS = ("dcgan", "mlp")


def _check(x: Tensor, shape: tuple[int, ...], what: str, labels: Tensor, classes: int) -> None:
    if tuple(x.shape[1:]) != shape:
        raise ValueError(f"{what} must be [N, {', '.join(map(str, shape))}], got {list(x.shape)}")
    if tuple(labels.shape) != (x.shape[0], classes) or not labels.is_floating_point():
        raise ValueError(
            f"labels must be one-hot [{x.shape[0]}, {classes}], floating point, got {labels.dtype} {list(labels.shape)}"
        )


class ConditionalNorm(nn.Module):
    """(A y) norm(h) + B y for h [N, width, ...] and y [N, classes]; A begins at 1 and B at 0."""

    def __init__(self, width: int, classes: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(width, affine=False) if batch_norm else nn.Identity()
        self.gain = nn.Linear(classes, width, bias=False)
        self.bias = nn.Linear(classes, width, bias=False)
        nn.init.ones_(self.gain.weight)
        nn.init.zeros_(self.bias.weight)

    def forward(self, h: Tensor, labels: Tensor) -> Tensor:
        per_channel = (*labels.shape[:1], -1, *[1] * (h.ndim - 2))
        return self.gain(labels).view(per_channel) * self.norm(h) + self.bias(labels).view(per_channel)


class ConcatGenerator(nn.Module):
    """g([z, y]); c_dim: length of y."""

    def __init__(self, inner: nn.Module, latent_dim: int, classes: int) -> None:
        super().__init__()
        self.inner, self.latent_dim, self.c_dim = inner, latent_dim, classes

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        _check(latents, (self.latent_dim,), "latents", labels, self.c_dim)
        return self.inner(torch.cat([latents, labels.to(latents.dtype)], 1))


class ConcatCritic(nn.Module):
    """d([x, y]): for convolutions x and y are channels, otherwise the numbers of one vector."""

    def __init__(self, inner: nn.Module, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.inner, self.shape, self.c_dim = inner, shape, classes
        self.flat = isinstance(inner, mlp.Critic)

    @property
    def logit_layer(self) -> nn.Module:
        """The layer that makes features into logits."""
        layer = self.inner.logit_layer
        assert isinstance(layer, nn.Module)
        return layer

    def forward(self, samples: Tensor, labels: Tensor) -> Tensor:
        _check(samples, self.shape, "samples", labels, self.c_dim)
        y = labels.to(samples.dtype)
        if self.flat:
            return self.inner(torch.cat([samples.flatten(1), y], 1))
        return self.inner(torch.cat([samples, y[:, :, None, None].expand(-1, -1, *samples.shape[2:])], 1))


class ProjectionGenerator(nn.Module):
    """`layers` with the class's gain and bias in front of every ReLU; c_dim: length of y."""

    def __init__(self, layers: Iterable[nn.Module], latent_dim: int, classes: int, *, batch_norm: bool) -> None:
        super().__init__()
        self.latent_dim, self.c_dim = latent_dim, classes
        self.layers = nn.ModuleList()
        width = 0
        for layer in layers:
            if isinstance(layer, nn.BatchNorm2d):
                continue
            if isinstance(layer, nn.ReLU):
                self.layers.append(ConditionalNorm(width, classes, batch_norm=batch_norm))
            self.layers.append(layer)
            width = getattr(layer, "out_channels", getattr(layer, "out_features", width))

    def forward(self, latents: Tensor, labels: Tensor) -> Tensor:
        _check(latents, (self.latent_dim,), "latents", labels, self.c_dim)
        h = latents
        for layer in self.layers:
            h = layer(h, labels) if isinstance(layer, ConditionalNorm) else layer(h)
        return h


class ProjectionCritic(nn.Module):
    """psi(phi(x)) + (V y)^T phi(x)."""

    def __init__(
        self, phi: nn.Module, psi: nn.Module, shape: tuple[int, ...], features: int, classes: int, *, spectral: bool
    ) -> None:
        super().__init__()
        self.shape, self.c_dim = shape, classes
        self.phi, self.psi = phi, psi
        self.v = nn.Linear(classes, features, bias=False)
        nn.init.normal_(self.v.weight, 0.0, 1 / math.sqrt(features))
        if spectral:
            spectral_norm(self.v)

    @property
    def logit_layer(self) -> nn.Module:
        """The layer that makes features into the unconditional part of logits."""
        return self.psi

    def forward(self, samples: Tensor, labels: Tensor) -> Tensor:
        _check(samples, self.shape, "samples", labels, self.c_dim)
        h = self.phi(samples)
        # Thousands of products make one logit: they are summed in full precision.
        projection = self.v(labels) * h.flatten(1)
        return self.psi(h).flatten() + projection.sum(1, dtype=torch.promote_types(h.dtype, torch.float32))


def build(
    *, classes: int, network: str = "dcgan", conditioning: str = "projection", **settings: Any
) -> tuple[nn.Module, nn.Module]:
    """The pair for `classes` classes; `settings` are those of `dcgan.build` or `mlp.build`."""
    dcgan._check_positive(classes=classes)
    dcgan._check_choice("conditioning", conditioning, CONDITIONINGS)
    dcgan._check_choice("network", network, NETWORKS)
    parts = _dcgan if network == "dcgan" else _mlp
    return parts(classes, conditioning == "concat", **settings)


def _dcgan(classes: int, concat: bool, **settings: Any) -> tuple[nn.Module, nn.Module]:
    if concat:
        latent_dim, channels = settings["latent_dim"], settings["channels"]
        generator, _ = dcgan.build(**{**settings, "latent_dim": latent_dim + classes})
        _, critic = dcgan.build(**{**settings, "channels": channels + classes})
        shape = (channels, *critic.image_shape[1:])
        return ConcatGenerator(generator, latent_dim, classes), ConcatCritic(critic, shape, classes)
    generator, critic = dcgan.build(**settings)
    latent_dim, psi = generator.latent_dim, critic.layers[-1]
    assert isinstance(psi, nn.Conv2d)
    layers = [nn.Unflatten(1, (latent_dim, 1, 1)), *generator.layers]
    batch_norm = settings.get("generator_norm", "batch") == "batch"
    return (
        ProjectionGenerator(layers, latent_dim, classes, batch_norm=batch_norm),
        ProjectionCritic(
            critic.layers[:-1],
            psi,
            critic.image_shape,
            psi.in_channels * dcgan.SMALLEST_SIDE**2,
            classes,
            spectral=settings.get("critic_norm") == "spectral",
        ),
    )


def _mlp(
    classes: int, concat: bool, *, shape: list[int], latent_dim: int, width: int, depth: int
) -> tuple[nn.Module, nn.Module]:
    sizes: dict[str, Any] = {"width": width, "depth": depth}
    if concat:
        generator, _ = mlp.build(shape, latent_dim=latent_dim + classes, **sizes)
        critic = mlp.Critic([math.prod(shape) + classes], **sizes)
        return ConcatGenerator(generator, latent_dim, classes), ConcatCritic(critic, tuple(shape), classes)
    generator, critic = mlp.build(shape, latent_dim=latent_dim, **sizes)
    phi = nn.Sequential(nn.Flatten(), *critic.layers[:-1])
    last = [nn.Unflatten(1, generator.shape), *([nn.Tanh()] if len(shape) > 1 else [])]
    return (
        ProjectionGenerator([*generator.layers, *last], latent_dim, classes, batch_norm=False),
        ProjectionCritic(phi, critic.layers[-1], critic.shape, width, classes, spectral=False),
    )
