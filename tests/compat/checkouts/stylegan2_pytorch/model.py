"""A small network in the calls of rosinality's model.py."""

import torch
from op import FusedLeakyReLU, conv2d_gradfix, fused_leaky_relu, upfirdn2d
from torch import nn


class Critic(nn.Module):
    def __init__(self, channels=4):
        super().__init__()
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0])
        self.register_buffer("kernel", torch.outer(taps, taps) / 64)
        self.weight = nn.Parameter(torch.randn(channels, 3, 3, 3))
        self.up = nn.Parameter(torch.randn(channels, 3, 3, 3))
        self.activate = FusedLeakyReLU(channels)
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x):
        x = upfirdn2d(x, self.kernel, pad=(2, 2))
        x = conv2d_gradfix.conv2d(input=x, weight=self.weight, bias=None, stride=2, padding=0)
        x = self.activate(x)
        x = conv2d_gradfix.conv_transpose2d(x, self.up, stride=2)
        x = upfirdn2d(x, self.kernel * 4, up=2, down=1, pad=(2, 1))
        x = upfirdn2d(x, self.kernel, down=2, pad=(1, 1))
        return fused_leaky_relu(x.mean([2, 3]), self.bias[:3])


def r1(critic, real):
    with conv2d_gradfix.no_weight_gradients():
        (grad,) = torch.autograd.grad(outputs=critic(real).sum(), inputs=real, create_graph=True)
    return grad.pow(2).reshape(grad.shape[0], -1).sum(1).mean()
