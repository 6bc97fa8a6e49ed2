"""Path length regularisation against Jacobians written out by hand, in float64."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from gan_fast.penalties import PathLengthPenalty

N, D, SHAPE = 5, 4, (3, 2, 6)
DTYPE = torch.float64


def noise(seed: int, dtype: torch.dtype = DTYPE) -> Tensor:
    y = torch.randn((N, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=dtype)
    return y / (SHAPE[1] * SHAPE[2]) ** 0.5


def linear_case(layers: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """images = sum_l w_l A_l: the matrices `[L, D, CHW]`, the latents and the images."""
    a = torch.randn(layers or 1, D, 36, dtype=DTYPE, requires_grad=True)
    w = torch.randn((N, layers, D) if layers else (N, D), dtype=DTYPE, requires_grad=True)
    images = torch.einsum("nld,ldp->np", w.view(N, layers or 1, D), a).view(N, *SHAPE)
    return a, w, images


@pytest.mark.parametrize("layers", [None, 1, 3])
def test_linear_generator(layers):
    """J_l^T y = A_l y: value, gradient for A and running mean, over two calls."""
    a, w, images = linear_case(layers)
    penalty = PathLengthPenalty(weight=1.7, decay=0.3).double()
    mean = 0.0
    for seed in (1, 2):
        (got,) = torch.autograd.grad(
            value := penalty(images, w, generator=torch.Generator().manual_seed(seed)), a, retain_graph=True
        )
        y = noise(seed).view(N, 36)
        pulled = torch.einsum("ldp,np->nld", a.detach(), y)
        length = (pulled.square().sum((1, 2)) / (layers or 1)).sqrt()
        mean += 0.3 * (float(length.mean()) - mean)
        torch.testing.assert_close(value, 1.7 * (length - mean).square().mean(), rtol=1e-12, atol=0)
        torch.testing.assert_close(penalty.mean, torch.tensor(mean, dtype=DTYPE), rtol=1e-12, atol=0)
        slope = 1.7 * 2 / N * (length - mean) / length / (layers or 1)
        torch.testing.assert_close(got, torch.einsum("n,nld,np->ldp", slope, pulled, y), rtol=1e-11, atol=1e-13)


def test_curved_generator():
    """images = (w A)^2 / 2 has J^T y = A ((w A) y), so the penalty reaches the latents as well."""
    a = torch.randn(D, 36, dtype=DTYPE)
    w = torch.randn(N, D, dtype=DTYPE, requires_grad=True)
    penalty = PathLengthPenalty(decay=1e-300).double()
    images = ((w @ a).square() / 2).view(N, *SHAPE)
    (got,) = torch.autograd.grad(penalty(images, w, generator=torch.Generator().manual_seed(3)), w)
    y = noise(3).view(N, 36)
    hessian = torch.einsum("dp,np,ep->nde", a, y, a)  # J^T y = H w
    # weight |H w|^2 / N, and the gradient 2 weight H^T H w / N
    expected = 2 * 2.0 / N * torch.einsum("ned,nef,nf->nd", hessian, hessian, w.detach())
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-13)


def test_eval_and_state_dict():
    _, w, images = linear_case(None)
    penalty = PathLengthPenalty()
    penalty(images.float(), w)
    assert penalty.mean > 0
    other = PathLengthPenalty()
    other.load_state_dict(penalty.state_dict())
    before = other.mean.clone()
    other.eval()(images.float(), w)
    assert torch.equal(other.mean, before) and torch.equal(before, penalty.mean)


def test_the_mean_is_a_constant_and_noise_is_drawn_anew():
    _, w, images = linear_case(None)
    penalty = PathLengthPenalty()
    assert penalty(images, w) != penalty(images, w)
    torch.manual_seed(4)
    first = penalty.eval()(images, w)
    torch.manual_seed(4)
    assert torch.equal(first, penalty(images, w))


def test_finite_at_zero_gradient():
    """A generator that is 0 for every latent has length 0: the penalty is weight a^2 and its gradient 0."""
    gain = torch.zeros((), requires_grad=True)
    w = torch.randn(N, D, requires_grad=True)
    images = gain * w.sum(1).view(N, 1, 1, 1).expand(N, *SHAPE)
    penalty = PathLengthPenalty(weight=2.0, decay=0.5).eval()
    penalty.mean.fill_(3.0)
    value = penalty(images, w)
    value.backward()
    assert value == 18 and gain.grad == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(dtype):
    """The norm is taken in float32: lengths around 300, whose squares are beyond float16, come out finite and near."""
    a, w, _ = linear_case(None)
    a, w = (300 * a.detach()[0]).to(dtype), w.detach().to(dtype).requires_grad_()
    penalty = PathLengthPenalty(decay=1e-30)
    value = penalty((w @ a).view(N, *SHAPE), w, generator=torch.Generator().manual_seed(5))
    expected = 2 * (noise(5, torch.float32).view(N, 36) @ a.float().mT).square().sum(1).mean()
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, expected, rtol=2e-2, atol=0)


def test_errors():
    _, w, images = linear_case(None)
    penalty = PathLengthPenalty()
    with pytest.raises(ValueError, match="do not require grad"):
        penalty(images, w.detach())
    with pytest.raises(ValueError, match="without a graph"):
        penalty(images.detach(), w)
    with pytest.raises(ValueError, match="do not depend on the latents"):
        penalty(images, w.clone())
    with pytest.raises(RuntimeError, match="no_grad"), torch.no_grad():
        penalty(images, w)
    with pytest.raises(ValueError, match="empty batch"):
        penalty(images[:0], w[:0])
    with pytest.raises(ValueError, match="of one batch"):
        penalty(images[:3], w)
    with pytest.raises(ValueError, match="of one batch"):
        penalty(images, w.view(-1))
    with pytest.raises(ValueError, match="one device"):
        penalty.to("meta")(images, w)
    with pytest.raises(ValueError, match="decay"):
        PathLengthPenalty(decay=0.0)


def test_unconnected_latents_of_a_module():
    """Latents that the generator never used are named, not reported by autograd."""
    generator = nn.Linear(D, 36)
    with pytest.raises(ValueError, match="do not depend"):
        PathLengthPenalty()(generator(torch.randn(N, D)).view(N, *SHAPE), torch.randn(N, D, requires_grad=True))


WORKER = """
import torch, torch.distributed as dist
from gan_fast.penalties import PathLengthPenalty
dist.init_process_group("gloo")
penalty = PathLengthPenalty(decay=0.5)
w = torch.ones(3, 2, requires_grad=True)
gain = 1.0 + dist.get_rank()
images = gain * w.norm(dim=1).view(3, 1, 1, 1)     # |J^T y| = gain |y|
seeded = lambda: torch.Generator().manual_seed(0)
penalty(images, w, generator=seeded())
y = torch.randn(3, 1, 1, 1, generator=seeded())
torch.testing.assert_close(penalty.mean, 0.5 * 1.5 * y.abs().mean())
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_ranks_share_the_mean(tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    subprocess.run([*torchrun, str(script)], env=environment, check=True, timeout=120)
