"""A residual block in the calls of R3GAN's fused operators and resamplers: bfloat16, gain 1, kernels as buffers."""

import torch
from torch import nn
from torch_utils.ops import bias_act, upfirdn2d


class BiasedActivation(nn.Module):
    def __init__(self, features):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(features))

    def forward(self, x):
        return bias_act.bias_act(x, self.bias.to(x.dtype), act="lrelu", gain=1)


class Resampler(nn.Module):
    def __init__(self, up):
        super().__init__()
        self.up = up
        taps = torch.tensor([[1.0, 2.0, 1.0]])
        self.register_buffer("kernel", taps.t() @ taps / 16)

    def forward(self, x):
        resample = upfirdn2d.upsample2d if self.up else upfirdn2d.downsample2d
        return resample(x, self.kernel)


class Block(nn.Module):
    def __init__(self, features=4, groups=2):
        super().__init__()
        self.up, self.down = Resampler(True), Resampler(False)
        self.first, self.second = BiasedActivation(features), BiasedActivation(features)
        self.conv = nn.Conv2d(features, features, 3, padding=1, groups=groups, bias=False)

    def forward(self, x):
        y = self.conv(self.first(self.up(x)))
        return x + self.second(self.down(y))
