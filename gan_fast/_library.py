"""Registers the references as the implementation of every op on devices that have no kernel of their own.

CPU and CUDA kernels, shapes for tracing (Meta) and autograd are registered by `gan_fast._C`. What is left, such as MPS
or XPU, is served here through the dispatcher, so that no caller asks for a device. The references are called below
autograd.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from gan_fast.reference import adversarial_loss as adversarial
from gan_fast.reference import bias_act, filtered_lrelu, softplus, upfirdn2d
from gan_fast.reference import binary_cross_entropy as bce
from gan_fast.reference import gradient_penalty as penalty
from gan_fast.reference import l1_distance as l1
from gan_fast.reference import modulated_convolution as modulated
from gan_fast.triton import serve

# A Library object that is not kept loses its kernels.
_library = torch.library.Library("gan_fast", "IMPL")


def _adversarial_loss(
    real: list[Tensor],
    fake: list[Tensor],
    real_weight: list[Tensor],
    fake_weight: list[Tensor],
    kind: int,
    real_term: list[float],
    fake_term: list[float],
    reduction: int,
    with_stats: bool,
    with_gradients: bool,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    args = (real, fake, real_weight, fake_weight, kind, real_term, fake_term, reduction)
    loss, stats = adversarial.adversarial_loss(*args, with_stats)
    gradients = adversarial.adversarial_loss_backward([torch.ones_like(loss)], *args) if with_gradients else []
    return loss, stats, gradients


def _adversarial_terms(real: list[Tensor], fake: list[Tensor], *args: Any) -> list[Tensor]:
    dtype = (fake or real)[0].dtype
    return [t.to(dtype) for t in adversarial.adversarial_terms(real, fake, *args)]


def _l1_distance(a: list[Tensor], b: list[Tensor], with_gradients: bool) -> tuple[Tensor, list[Tensor]]:
    distance = l1.l1_distance(a, b)
    return distance, l1.l1_distance_backward(torch.ones_like(distance), a, b) if with_gradients else []


KERNELS: dict[str, Callable[..., Any]] = {
    "adversarial_loss": _adversarial_loss,
    "adversarial_terms": _adversarial_terms,
    "adversarial_loss_backward": adversarial.adversarial_loss_backward,
    "bias_act": bias_act.bias_act,
    "bias_act_backward": bias_act.bias_act_backward,
    "bias_act_backward_": bias_act.bias_act_backward_,
    "bias_act_double_backward": bias_act.bias_act_double_backward,
    "binary_cross_entropy": bce.binary_cross_entropy_op,
    "binary_cross_entropy_backward": bce.binary_cross_entropy_backward,
    "softplus": softplus.softplus,
    "softplus_backward": softplus.softplus_backward,
    "l1_distance": _l1_distance,
    "l1_distance_backward": l1.l1_distance_backward,
    "gradient_penalty": penalty.gradient_penalty,
    "gradient_penalty_backward": penalty.gradient_penalty_backward,
    "upfirdn2d": upfirdn2d.upfirdn2d_op,
    "filtered_lrelu": filtered_lrelu.filtered_lrelu_op,
    "filtered_lrelu_backward": filtered_lrelu.filtered_lrelu_backward,
    "filtered_lrelu_tangent": filtered_lrelu.filtered_lrelu_tangent,
    "modulated_convolution": modulated.modulated_convolution,
    "modulated_convolution_input_gradient": modulated.input_gradient,
    "modulated_convolution_weight_gradient": modulated.weight_gradient,
    "modulated_convolution_epilogue_gradient": modulated.epilogue_gradient,
}

for _name, _function in KERNELS.items():
    _library.impl(_name, _function, "CompositeExplicitAutograd")

# Modulated convolution on CUDA is Triton's or cuDNN's, which nothing decides before a tensor is there.
_library.impl("modulated_convolution", serve.forward, "CUDA")
_library.impl("modulated_convolution_input_gradient", serve.input_gradient, "CUDA")
_library.impl("modulated_convolution_weight_gradient", serve.weight_gradient, "CUDA")
_library.impl("modulated_convolution_epilogue_gradient", serve.epilogue_gradient, "CUDA")
