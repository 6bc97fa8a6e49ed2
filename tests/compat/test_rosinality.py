"""A stand-in for stylegan2-pytorch: the names of its `op` folder, against the same network on the references."""

from __future__ import annotations

import sys

import torch

from gan_fast import reference_mode
from gan_fast.compat import nvlabs, rosinality


def test_network_and_second_order(checkout):
    imported = checkout("stylegan2_pytorch")
    replaced = rosinality.install()
    assert replaced[:3] == ["op.fused_act", "op.upfirdn2d", "op.conv2d_gradfix"]
    model = imported("model")
    torch.manual_seed(0)
    critic = model.Critic().double()
    critic.kernel = critic.kernel.float()
    images = torch.randn(2, 3, 9, 8, dtype=torch.float64)

    def gradients():
        real = images.clone().requires_grad_()
        return torch.autograd.grad(model.r1(critic, real) + critic(real).sum(), list(critic.parameters()))

    got = gradients()
    with reference_mode():
        want = gradients()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)
    assert sorted(critic.activate.state_dict()) == ["bias"] and imported("op").upfirdn2d is model.upfirdn2d
    assert rosinality.uninstall() == replaced


def test_functions(checkout, monkeypatch):
    """The folder elsewhere in a package, and no folder at all."""
    imported = checkout("stylegan2_pytorch")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if "stylegan2_pytorch" not in p])
    rosinality.install()
    op = imported("op")
    assert callable(op.upfirdn2d) and imported("op.upfirdn2d").upfirdn2d is op.upfirdn2d
    x, bias = torch.randn(2, 3, 4, 5), torch.randn(3)
    expected = torch.nn.functional.leaky_relu(x + bias[:, None, None], 0.1) * 3
    torch.testing.assert_close(op.fused_leaky_relu(x, bias, 0.1, 3), expected)
    torch.testing.assert_close(op.fused_leaky_relu(x[:, :, 0, 0]), op.FusedLeakyReLU(3)(x[:, :, 0, 0]))
    assert op.FusedLeakyReLU(3, bias=False).bias is None

    kernel = torch.randn(3, 2)
    got = op.upfirdn2d(x, kernel, up=(1, 2), down=1, pad=(1, 0))
    stuffed = torch.zeros(2, 3, 8, 5)
    stuffed[:, :, ::2] = x
    padded = torch.nn.functional.pad(stuffed, (1, 0, 1, 0))
    weight = kernel.flip([0, 1]).expand(3, 1, 3, 2)
    torch.testing.assert_close(got, torch.nn.functional.conv2d(padded, weight, groups=3), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(op.upfirdn2d(x, kernel, pad=(1, 2, 3, 4)).shape, torch.Size([2, 3, 9, 7]))


def test_beside_the_other(checkout):
    """Two installed, the first taken away first: torch is itself again after the second."""
    checkout("stylegan2_pytorch")
    initialise = torch.optim.Adam.__init__
    nvlabs.install()
    rosinality.install()
    assert nvlabs.uninstall() and torch.optim.Adam([torch.zeros(1)], betas=[0, 0.9])
    assert rosinality.uninstall() and torch.optim.Adam.__init__ is initialise
