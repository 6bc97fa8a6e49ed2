r"""Gradient penalties: functions of g_i = d (sum of sample i's logits) / d image_i.

    gradient_penalty   w mean_i (|g_i| - c)^2, or max(0, |g_i| - c)^2, at x_i = real_i + t_i (fake_i - real_i)
    dragan_penalty     w mean_i (|g_i| - 1)^2                          at x_i = real_i + t_i u_i s/2
    r1_penalty         w/2 mean_i |g_i|^2                              at the real images
    r2_penalty         the same                                        at the generated images

|g_i| is the 2-norm over all dimensions but the batch, computed in float32 (float64 for float64 images) whatever the
dtype of the images. Where |g_i| is exactly zero its derivative is taken to be zero, so no gradient is ever NaN for it.

A critic that returns several maps (a list or tuple of tensors, or patch logits `[N, 1, H, W]`) counts as the sum of
all its logits of a sample.

Each penalty is one pass over g and its gradient another (`torch.ops.gan_fast.gradient_penalty`); the rest is the
critic's own double backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gan_fast._modes import use_reference
from gan_fast.penalties.lean import fast_double_backward
from gan_fast.reference import gradient_penalty as reference
from gan_fast.reference.adversarial_loss import accumulate_dtype
from gan_fast.reference.gradient_penalty import Kind

Logits = Tensor | Sequence[Tensor]
Critic = Callable[..., Logits]


def r1_penalty(real_logits: Logits, real_images: Tensor, weight: float) -> Tensor:
    """weight/2 mean_i |d logit_i / d image_i|^2 at real images.

        real_images.requires_grad_()
        real_logits = critic(real_images)
        penalty = r1_penalty(real_logits, real_images, weight=10.0)

    Args:
        real_logits: `[N, ...]`, or a list of such tensors: what the critic made of `real_images`.
        real_images: `[N, ...]`, float64, float32, bfloat16 or float16, requiring grad since before the critic ran.
        weight: the gamma of the paper.

    Returns:
        The penalty, 0-dim, float32 (float64 for float64 images), differentiable to any order with respect to the
        critic's parameters and to the images. The graph of the logits is kept, so that a loss of them can follow.

    Raises:
        ValueError: images that do not require grad; logits that do not depend on them, or are not one row a sample;
            an empty batch.
        TypeError: images or logits that are not floating-point tensors.
        RuntimeError: called under `torch.no_grad()`, or inside a `torch.func` transform, where logits carry no graph
            (`gradient_penalty` works there).

    Source: Mescheder, Geiger and Nowozin 2018, equation 9.
    """
    return _square_penalty("r1_penalty", "real", real_logits, real_images, weight)


def r2_penalty(fake_logits: Logits, fake_images: Tensor, weight: float) -> Tensor:
    """weight/2 mean_i |d logit_i / d image_i|^2 at generated images: `r1_penalty` on the other side.

    `fake_images` are usually detached from the generator first, `fake_images.detach().requires_grad_()`; images that
    still hang on it would pass the penalty's gradient on to the generator. Arguments, result and errors are those of
    `r1_penalty`.

    Source: Mescheder, Geiger and Nowozin 2018, equation 10.
    """
    return _square_penalty("r2_penalty", "fake", fake_logits, fake_images, weight)


def gradient_penalty(
    critic: Critic,
    real: Tensor,
    fake: Tensor,
    *,
    center: float = 1.0,
    one_sided: bool = False,
    weight: float = 10.0,
    critic_kwargs: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """weight mean_i (|g_i| - center)^2 between real and generated images: WGAN-GP, and its relatives.

    The critic is called once, at x_i = real_i + t_i (fake_i - real_i) with one t_i a sample, uniform in [0, 1).

        WGAN-GP        the defaults
        WGAN-LP        one_sided=True: max(0, |g_i| - center)^2
        zero-centred   center=0.0

    Args:
        critic: returns logits, one row a sample, or a list of such tensors; samples must not mix (no batch norm).
        real, fake: `[N, ...]` of equal shape, float64, float32, bfloat16 or float16. Dtypes may differ (a generator
            under autocast): the images between them have the wider one. Both count as constants.
        center: the norm aimed at, at least 0.
        one_sided: penalise only norms above the center.
        weight: lambda of the paper.
        critic_kwargs: further arguments of the critic, passed as they are: labels are those of both sides.
        generator: where t comes from; torch's default generator of the device without it.

    Returns:
        The penalty, 0-dim, float32 (float64 for float64 images), differentiable to any order with respect to what the
        critic depends on besides the images.

    Raises:
        ValueError: shapes or devices that differ; an empty batch; logits that do not depend on the images, or are not
            one row a sample; a negative center; a generator of another device.
        TypeError: images or logits that are not floating-point tensors.
        RuntimeError: called under `torch.no_grad()`.

    Under `torch.func` transforms the plain reference serves. Inside `torch.compile` the whole step belongs in one
    region (`penalties.compile_step`).

    Sources: Gulrajani et al. 2017, algorithm 1; Petzka, Fischer and Lukovnikov 2018 (one-sided); Thanh-Tung, Tran and
    Venkatesh 2019 (zero-centred).
    """
    name = "gradient_penalty"
    _check_call(name)
    _check_images(name, "real", real)
    _check_images(name, "fake", fake)
    if real.shape != fake.shape:
        raise ValueError(
            f"{name} got real images of shape {list(real.shape)} and fake ones of shape {list(fake.shape)}; it mixes "
            "them one by one, so their shapes must be equal"
        )
    if real.device != fake.device:
        raise ValueError(f"{name} got real images on {real.device} and fake ones on {fake.device}; move them to one")
    if not center >= 0:
        raise ValueError(f"{name} got center={center}; a norm is compared with it, so it must be at least 0")
    start = real.detach()
    dtype = torch.promote_types(real.dtype, fake.dtype)
    t = _uniform(name, start, (len(start), *[1] * (start.dim() - 1)), generator).to(dtype)
    x = torch.lerp(start.to(dtype), fake.detach().to(dtype), t)
    g = _gradient_at(name, critic, x, critic_kwargs)
    if center == 0:
        return _penalty(g, Kind.SQUARE, 0.0, 2 * weight)
    return _penalty(g, Kind.ONE_SIDED if one_sided else Kind.TWO_SIDED, center, weight)


def dragan_penalty(
    critic: Critic,
    real: Tensor,
    *,
    weight: float = 10.0,
    critic_kwargs: Mapping[str, Any] | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """weight mean_i (|g_i| - 1)^2 around real images.

    The critic is called once, at x_i = real_i + t_i u_i s/2: s is the standard deviation of all numbers of the batch
    (divided by their count), u_i is uniform in [0, 1) for every number of the image, and t_i in [0, 1), one a sample.
    The paper writes noise of N(0, c I) and the norm at x + noise; this is what its authors' published code draws, on
    the line from the image to the perturbed image, and what the results of the paper are from.

    Args:
        critic, real, weight, critic_kwargs, generator: as for `gradient_penalty`.

    Returns:
        The penalty, as `gradient_penalty` gives it; errors are the same.

    Source: Kodali, Abernethy, Hays and Kira 2017, section 2.4 and the authors' implementation.
    """
    name = "dragan_penalty"
    _check_call(name)
    _check_images(name, "real", real)
    start = real.detach()
    u = _uniform(name, start, start.shape, generator).to(start.dtype)
    t = _uniform(name, start, (len(start), *[1] * (start.dim() - 1)), generator).to(start.dtype)
    reach = 0.5 * start.detach().std(correction=0)
    x = torch.addcmul(start, u.mul_(reach), t)
    return _penalty(_gradient_at(name, critic, x, critic_kwargs), Kind.TWO_SIDED, 1.0, weight)


def _square_penalty(name: str, side: str, logits: Logits, images: Tensor, weight: float) -> Tensor:
    _check_call(name)
    _check_images(name, side, images)
    if _transformed():
        raise RuntimeError(
            f"{name} follows the graph of the logits, which has no images inside a torch.func transform; "
            "use gradient_penalty there, or torch.func.grad of the critic"
        )
    if not images.requires_grad:
        raise ValueError(
            f"{name} got {side}_images that do not require grad; call {side}_images.requires_grad_() before the critic"
        )
    return _penalty(_gradient_of(name, logits, images), Kind.SQUARE, 0.0, weight)


def _penalty(g: Tensor, kind: Kind, center: float, weight: float) -> Tensor:
    if use_reference():
        return reference.gradient_penalty(g, int(kind), center, weight)[0]
    penalty: Tensor = torch.ops.gan_fast.gradient_penalty(g, int(kind), center, weight)[0]
    return penalty


def _gradient_at(name: str, critic: Critic, x: Tensor, critic_kwargs: Mapping[str, Any] | None) -> Tensor:
    """g at x, which becomes a leaf."""
    kwargs = critic_kwargs or {}
    if _transformed():
        # leaves and autograd.grad are not to be had inside a transform; another transform is
        total = lambda images: sum(o.sum() for o in _maps(name, critic(images, **kwargs), images))  # noqa: E731
        g: Tensor = torch.func.grad(total)(x)
        return g
    x.requires_grad_()
    with contextlib.nullcontext() if torch.compiler.is_compiling() or use_reference() else fast_double_backward():
        logits = critic(x, **kwargs)
    return _gradient_of(name, logits, x)


def _gradient_of(name: str, logits: Logits, images: Tensor) -> Tensor:
    """d (sum of each sample's logits) / d images, to be differentiated again; of the images alone."""
    maps = [o for o in _maps(name, logits, images) if o.requires_grad]
    if maps:
        ones = [torch.ones_like(o) for o in maps]
        (g,) = torch.autograd.grad(maps, images, ones, create_graph=True, allow_unused=True)
        if g is not None:
            return g
    raise ValueError(
        f"{name} got logits that do not depend on the images; pass what the critic returned for these very images, "
        "not for a copy, and not detached"
    )


def _maps(name: str, logits: Logits, images: Tensor) -> Sequence[Tensor]:
    maps = [logits] if isinstance(logits, Tensor) else logits
    if not isinstance(maps, list | tuple) or not maps or not all(isinstance(o, Tensor) for o in maps):
        raise TypeError(
            f"{name} expects logits that are a tensor or a list of tensors, but got {type(logits).__name__}"
            + (f" of {type(maps[0]).__name__}" if isinstance(maps, list | tuple) and maps else "")
        )
    for o in maps:
        if not o.is_floating_point():
            raise TypeError(f"{name} expects floating-point logits, but got {o.dtype}")
        if o.dim() == 0 or o.shape[0] != images.shape[0]:
            raise ValueError(
                f"{name} got logits of shape {list(o.shape)} for {images.shape[0]} images; expected one row a sample, "
                f"[{images.shape[0]}, ...], before any mean"
            )
        if o.device != images.device:
            raise ValueError(f"{name} got logits on {o.device} for images on {images.device}; move them to one device")
    return maps


def _transformed() -> bool:
    """Whether a torch.func transform is at work."""
    return not torch.compiler.is_compiling() and torch._C._are_functorch_transforms_active()


def _check_call(name: str) -> None:
    if not torch.is_grad_enabled():
        raise RuntimeError(f"{name} differentiates the critic, which torch.no_grad() forbids; call it outside")


def _check_images(name: str, side: str, images: Tensor) -> None:
    if not isinstance(images, Tensor) or images.dtype not in (
        torch.float32,
        torch.float64,
        torch.bfloat16,
        torch.float16,
    ):
        got = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(
            f"{name} expects {side} images as a float32, float64, bfloat16 or float16 tensor, but got {got}"
        )
    if images.dim() == 0 or images.shape[0] == 0:
        raise ValueError(
            f"{name} got {side} images of shape {list(images.shape)}; expected a batch of at least one, [N, ...]"
        )


def _uniform(name: str, like: Tensor, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    if generator is not None and generator.device.type != like.device.type:
        raise ValueError(
            f"{name} got a generator of {generator.device} for images on {like.device}; make it with "
            f"torch.Generator({str(like.device)!r})"
        )
    return torch.rand(shape, generator=generator, device=like.device, dtype=accumulate_dtype(like))
