"""A small network that calls the ops the way StyleGAN3's synthesis does."""

import scipy.signal
import torch
from torch_utils.ops import bias_act, conv2d_gradfix, filtered_lrelu


def modulated_conv2d(x, w, s, padding):
    batch = x.shape[0]
    w = w * w.square().mean([1, 2, 3], keepdim=True).rsqrt()
    s = s * s.square().mean().rsqrt()
    w = w.unsqueeze(0) * s.unsqueeze(1).unsqueeze(3).unsqueeze(4)
    w = w * (w.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt().unsqueeze(2).unsqueeze(3).unsqueeze(4)
    x = x.reshape(1, -1, *x.shape[2:])
    w = w.reshape(-1, *w.shape[2:])
    x = conv2d_gradfix.conv2d(input=x, weight=w.to(x.dtype), padding=padding, groups=batch)
    return x.reshape(batch, -1, *x.shape[2:])


class Layer(torch.nn.Module):
    def __init__(self, inputs, outputs, up, down):
        super().__init__()
        self.up, self.down = up, down
        self.register_buffer("up_filter", self.taps(up))
        self.register_buffer("down_filter", self.taps(down))
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = torch.nn.Parameter(torch.zeros(outputs))

    @staticmethod
    def taps(factor):
        cutoff = scipy.signal.firwin(numtaps=6 * factor, cutoff=0.5 / factor, width=0.3, fs=2)
        return torch.as_tensor(cutoff, dtype=torch.float32)

    def forward(self, x, styles):
        x = modulated_conv2d(x, self.weight, styles, padding=2)
        half = 3 * self.up + 3 * self.down
        return filtered_lrelu.filtered_lrelu(
            x=x,
            fu=self.up_filter,
            fd=self.down_filter,
            b=self.bias.to(x.dtype),
            up=self.up,
            down=self.down,
            padding=[half - 2, half - 1, half - 3, half - 1],
            gain=2**0.5,
            slope=0.2,
            clamp=256,
        )


class Generator(torch.nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.affine = torch.nn.Parameter(torch.randn(6, channels))
        self.bias = torch.nn.Parameter(torch.ones(channels))
        self.const = torch.nn.Parameter(torch.randn(1, channels, 5, 4))
        self.layers = torch.nn.ModuleList([Layer(channels, channels, 2, 2), Layer(channels, channels, 4, 2)])

    def forward(self, z):
        styles = bias_act.bias_act(z.matmul(self.affine), self.bias)
        x = self.const.repeat(z.shape[0], 1, 1, 1)
        for layer in self.layers:
            x = layer(x, styles)
        return x
