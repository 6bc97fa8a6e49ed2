"""Small networks that call the ops the way StyleGAN2-ADA's do."""

import numpy as np
import torch
from torch_utils.ops import bias_act, conv2d_resample, fma, upfirdn2d

TAPS = [1, 3, 3, 1]


def modulated_conv2d(x, weight, styles, noise, up, resample_filter, demodulate, fused_modconv):
    batch = x.shape[0]
    w = weight.unsqueeze(0) * styles.reshape(batch, 1, -1, 1, 1)
    dcoefs = (w.square().sum(dim=[2, 3, 4]) + 1e-8).rsqrt() if demodulate else None
    geometry = {"f": resample_filter, "up": up, "padding": weight.shape[-1] // 2, "flip_weight": up == 1}
    if not fused_modconv:
        x = x * styles.to(x.dtype).reshape(batch, -1, 1, 1)
        x = conv2d_resample.conv2d_resample(x=x, w=weight.to(x.dtype), **geometry)
        if demodulate and noise is not None:
            return fma.fma(x, dcoefs.to(x.dtype).reshape(batch, -1, 1, 1), noise.to(x.dtype))
        if demodulate:
            return x * dcoefs.to(x.dtype).reshape(batch, -1, 1, 1)
        return x
    if demodulate:
        w = w * dcoefs.reshape(batch, -1, 1, 1, 1)
    x = x.reshape(1, -1, *x.shape[2:])
    w = w.reshape(-1, *weight.shape[1:])
    x = conv2d_resample.conv2d_resample(x=x, w=w.to(x.dtype), groups=batch, **geometry)
    x = x.reshape(batch, -1, *x.shape[2:])
    return x.add_(noise) if noise is not None else x


class FullyConnected(torch.nn.Module):
    def __init__(self, inputs, outputs, activation="linear", bias_init=0.0):
        super().__init__()
        self.activation = activation
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs))
        self.bias = torch.nn.Parameter(torch.full([outputs], float(bias_init)))
        self.gain = 1 / np.sqrt(inputs)

    def forward(self, x):
        x = x.matmul((self.weight * self.gain).t())
        return bias_act.bias_act(x, self.bias.to(x.dtype), act=self.activation)


class Layer(torch.nn.Module):
    def __init__(self, inputs, outputs, w_dim, side, up=1, kernel=3, activation="lrelu", demodulate=True):
        super().__init__()
        self.up, self.activation, self.demodulate = up, activation, demodulate
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(TAPS))
        self.register_buffer("noise_const", torch.randn(side, side))
        self.affine = FullyConnected(w_dim, inputs, bias_init=1)
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.noise_strength = torch.nn.Parameter(torch.full([], 0.1))
        self.bias = torch.nn.Parameter(torch.zeros(outputs))
        self.act_gain = bias_act.activation_funcs[activation].def_gain

    def forward(self, x, w, fused_modconv):
        noise = self.noise_const * self.noise_strength if self.demodulate else None
        styles = self.affine(w)
        args = (noise, self.up, self.resample_filter, self.demodulate, fused_modconv)
        x = modulated_conv2d(x, self.weight, styles, *args)
        return bias_act.bias_act(x, self.bias.to(x.dtype), act=self.activation, gain=self.act_gain, clamp=256)


class Generator(torch.nn.Module):
    def __init__(self, z_dim=6, w_dim=6, channels=4, side=8):
        super().__init__()
        self.z_dim = z_dim
        self.mapping = FullyConnected(z_dim, w_dim, "lrelu")
        self.const = torch.nn.Parameter(torch.randn(channels, side // 2, side // 2))
        self.conv0 = Layer(channels, channels, w_dim, side, up=2)
        self.conv1 = Layer(channels, 3, w_dim, side)
        self.torgb0 = Layer(channels, 3, w_dim, side // 2, kernel=1, activation="linear", demodulate=False)
        self.torgb1 = Layer(3, 3, w_dim, side, kernel=1, activation="linear", demodulate=False)

    def synthesis(self, ws, fused_modconv=None):
        fused_modconv = not self.training if fused_modconv is None else fused_modconv
        x = self.const.unsqueeze(0).repeat(ws.shape[0], 1, 1, 1)
        image = self.torgb0(x, ws[:, 0], fused_modconv)
        x = self.conv0(x, ws[:, 0], fused_modconv)
        x = self.conv1(x, ws[:, 1], fused_modconv)
        image = upfirdn2d.upsample2d(image, self.conv0.resample_filter)
        return image.add_(self.torgb1(x, ws[:, 2], fused_modconv))

    def forward(self, z):
        return self.synthesis(self.mapping(z).unsqueeze(1).repeat(1, 3, 1))


class Convolution(torch.nn.Module):
    def __init__(self, inputs, outputs, kernel=3, down=1, bias=True, activation="lrelu"):
        super().__init__()
        self.down, self.activation = down, activation
        self.register_buffer("resample_filter", upfirdn2d.setup_filter(TAPS))
        self.weight = torch.nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.weight_gain = 1 / np.sqrt(inputs * kernel**2)
        self.bias = torch.nn.Parameter(torch.zeros(outputs)) if bias else None
        self.act_gain = bias_act.activation_funcs[activation].def_gain

    def forward(self, x, gain=1):
        w = self.weight * self.weight_gain
        padding = self.weight.shape[-1] // 2
        x = conv2d_resample.conv2d_resample(
            x=x, w=w.to(x.dtype), f=self.resample_filter, down=self.down, padding=padding, flip_weight=self.down == 1
        )
        return bias_act.bias_act(x, self.bias, act=self.activation, gain=self.act_gain * gain)


class Discriminator(torch.nn.Module):
    def __init__(self, channels=4, side=8):
        super().__init__()
        self.fromrgb = Convolution(3, channels, kernel=1)
        self.conv0 = Convolution(channels, channels)
        self.conv1 = Convolution(channels, channels, down=2)
        self.skip = Convolution(channels, channels, kernel=1, down=2, bias=False, activation="linear")
        self.fc = FullyConnected(channels * (side // 2) ** 2, 1)

    def forward(self, image):
        x = self.fromrgb(image)
        y = self.skip(x, gain=np.sqrt(0.5))
        x = y.add_(self.conv1(self.conv0(x), gain=np.sqrt(0.5)))
        return self.fc(x.flatten(1))
