"""Every op of `torch.ops.gan_fast`: schema, autograd and fake kernel under opcheck, and a kernel for every device."""

from __future__ import annotations

import pytest
import torch

import gan_fast  # noqa: F401, registers the ops
from support.checks import check_op
from support.kernels import needs_kernels
from support.strategies import draw_values

pytestmark = needs_kernels

KINDS = {"linear": 0, "softplus": 1, "hinge": 2, "square": 3, "pair": 4, "average": 5}
NONE, MEAN, SUM = 0, 1, 2
TERMS = ([-1.0, 1.0, 0.1], [1.0, 1.0, 0.0])


def x(*shape: int, seed: int = 0, grad: bool = True, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return draw_values(shape, "normal", seed, dtype).requires_grad_(grad)


def adversarial_samples():
    one, two, weight = [x(4, 3)], [x(4, 3, seed=1)], [x(4, grad=False).abs()]
    for kind in KINDS.values():
        yield (one, two, [], [], kind, *TERMS, MEAN, False, False)
        yield (one, two, weight, [], kind, *TERMS, SUM, True, False)
    yield ([x(4, 3), x(2)], [x(4, 3), x(2)], [], [], KINDS["softplus"], *TERMS, MEAN, True, True)
    yield ([], [x(5, dtype=torch.bfloat16)], [], [], KINDS["linear"], *TERMS, MEAN, False, False)


def adversarial_term_samples():
    for kind in KINDS.values():
        yield ([x(4, 3)], [x(4, 3, seed=1)], [], [x(4, grad=False).abs()], kind, *TERMS)


def adversarial_backward_samples():
    for kind in KINDS.values():
        yield ([x()], [x(4, 3)], [x(4, 3, seed=1)], [], [], kind, *TERMS, MEAN)
    grads = [x(4, 3, seed=2), x(4, 3, seed=3)]
    yield (grads, [x(4, 3)], [x(4, 3, seed=1)], [], [], KINDS["softplus"], *TERMS, NONE)


def cross_entropy_samples():
    t, w = (
        draw_values((4, 3), "normal", 5, torch.float32).sigmoid(),
        draw_values((3,), "normal", 6, torch.float32).abs(),
    )
    for reduction in (NONE, MEAN, SUM):
        yield (x(4, 3), t, None, None, True, reduction, False)
    yield (x(4, 3), t, w.expand(4, 3), w.expand(4, 3), True, MEAN, True)
    yield (x(4, 3).detach().sigmoid().requires_grad_(), t, None, None, False, MEAN, False)


def cross_entropy_backward_samples():
    t = draw_values((4, 3), "normal", 5, torch.float32).sigmoid()
    yield (x(), x(4, 3), t, None, None, True, MEAN)
    yield (x(4, 3, seed=2), x(4, 3).detach().sigmoid().requires_grad_(), t, None, None, False, NONE)


SAMPLES = {
    "adversarial_loss": adversarial_samples,
    "adversarial_terms": adversarial_term_samples,
    "adversarial_loss_backward": adversarial_backward_samples,
    "binary_cross_entropy": cross_entropy_samples,
    "binary_cross_entropy_backward": cross_entropy_backward_samples,
    "softplus": lambda: iter([(x(4, 3), 1.0, 20.0), (x(7, dtype=torch.bfloat16), 2.0, 1.0)]),
    "softplus_backward": lambda: iter([(x(4, 3, seed=1), x(4, 3), 1.0, 20.0)]),
    "l1_distance": lambda: iter([([x(4, 3), x(2)], [x(4, 3, seed=1), x(2, seed=2)], False)]),
    "l1_distance_backward": lambda: iter([(x(), [x(4, 3)], [x(4, 3, seed=1)])]),
}


def registered() -> set[str]:
    names = torch._C._dispatch_get_all_op_names()
    return {name.removeprefix("gan_fast::").split(".")[0] for name in names if name.startswith("gan_fast::")}


@pytest.mark.parametrize("name", SAMPLES)
def test_opcheck(name):
    check_op(getattr(torch.ops.gan_fast, name).default, list(SAMPLES[name]()))


def test_no_loss_op_is_without_samples():
    assert set(SAMPLES) <= registered()
    losses_ops = {name for name in registered() if name.startswith(("adversarial", "binary", "softplus", "l1_"))}
    assert losses_ops == set(SAMPLES)


@pytest.mark.parametrize("name", SAMPLES)
def test_every_device_has_a_kernel(name):
    """CPU and Meta kernels of its own, autograd in C++, and the reference for any other device."""
    for key in ("CPU", "Meta", "AutogradCPU", "AutogradCUDA", "CompositeExplicitAutograd"):
        assert torch._C._dispatch_has_kernel_for_dispatch_key(f"gan_fast::{name}", key) or (
            key.startswith("Autograd")
            and (torch._C._dispatch_has_kernel_for_dispatch_key(f"gan_fast::{name}", "Autograd"))
        ), f"gan_fast::{name} has no {key} kernel"
