"""R1 through the whole critic and path length through the whole generator, against the float64 references.

The float32 run is the package's own, fused ops and all; the truth is the same networks in float64 under
`reference_mode`. Both the penalty and its gradient for every parameter must agree: |g - truth| <= 1e-4 |truth| over all
parameters together. Leaky ReLU's kinks make single entries worse than that: a sign that float32 rounds the other way.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch

import gan_fast
from gan_fast import models

SETTINGS = {"resolution": 32, "latent_dim": 32, "w_dim": 32, "mapping_layers": 2, "channel_base": 1024}


def networks(**settings):
    pair = models.build("stylegan2", seed=0, **{**SETTINGS, **settings})
    with torch.no_grad():
        for layer in pair[0].modules():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.fill_(0.1)
    return pair


def r1(critic, images, c):
    images = images.detach().requires_grad_()
    (g,) = torch.autograd.grad(critic(images, c).sum(), images, create_graph=True)
    return g.square().sum([1, 2, 3]).mean()


def path_length(generator, ws, y):
    ws = ws.detach().requires_grad_()
    images = generator.synthesis(ws, noise_mode="const")
    (g,) = torch.autograd.grad(images, ws, y / math.sqrt(images.shape[2] * images.shape[3]), create_graph=True)
    return (g.square().sum(2).mean(1).sqrt() - 0.5).square().mean()


def flat_gradients(network):
    """In float64; zeros where a parameter has none, as a bias that no derivative reaches."""
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
    return torch.cat([g.double().flatten() for g in gradients])


def judged(penalty, network, *inputs):
    """Relative distances of the penalty and of its gradient from the truth."""
    truth_network = copy.deepcopy(network).double()
    with gan_fast.reference_mode():
        truth = penalty(truth_network, *(x if x is None else x.double() for x in inputs))
        truth.backward()
    value = penalty(network, *inputs)
    value.backward()
    found, true = flat_gradients(network), flat_gradients(truth_network)
    return abs(value.item() / truth.item() - 1), float((found - true).norm() / true.norm()), found


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
@pytest.mark.parametrize("classes", [0, 3])
def test_r1(architecture, classes):
    _, critic = networks(critic_architecture=architecture, classes=classes)
    torch.manual_seed(1)
    images, c = torch.randn(8, 3, 32, 32), torch.eye(3)[torch.arange(8) % 3] if classes else None
    value, gradient, found = judged(r1, critic, images, c)
    assert value < 1e-4 and gradient < 1e-4, (value, gradient)
    assert found.isfinite().all() and found.any()


@pytest.mark.parametrize("architecture", ["orig", "skip", "resnet"])
def test_path_length(architecture):
    generator, _ = networks(generator_architecture=architecture)
    torch.manual_seed(2)
    ws = torch.randn(4, generator.num_ws, 32)
    y = torch.randn(4, 3, 32, 32)
    value, gradient, found = judged(path_length, generator, ws, y)
    assert value < 1e-4 and gradient < 1e-4, (value, gradient)
    assert found.isfinite().all() and found.any()


def test_path_length_in_bf16_points_the_same_way():
    generator, _ = networks(num_fp16_res=3, low_precision="bf16", conv_clamp=256)
    torch.manual_seed(2)
    ws, y = torch.randn(4, generator.num_ws, 32), torch.randn(4, 3, 32, 32)
    truth, _ = networks()
    for network in (generator, truth):
        path_length(network, ws, y).backward()
    a, b = flat_gradients(generator), flat_gradients(truth)
    assert a.isfinite().all() and torch.cosine_similarity(a, b, 0) > 0.98
