"""The geometric and the filter part of an augmentation pipe, in the calls of StyleGAN2-ADA's."""

import torch
from torch_utils import misc
from torch_utils.ops import conv2d_gradfix, grid_sample_gradfix, upfirdn2d


class AugmentPipe(torch.nn.Module):
    def __init__(self):
        super().__init__()
        taps = [0.015, -0.07, -0.02, 0.5, 0.5, -0.02, -0.07, 0.015]
        self.register_buffer("Hz_geom", upfirdn2d.setup_filter(taps))
        self.register_buffer("Hz_fbank", torch.tensor([0.1, 0.2, 0.4, 0.2, 0.1]))

    def forward(self, images):
        batch, channels, height, width = images.shape
        device, dtype = images.device, images.dtype
        pad = self.Hz_geom.shape[0] // 4
        images = torch.nn.functional.pad(images, pad=[pad + 2] * 4, mode="reflect")
        images = upfirdn2d.upsample2d(x=images, f=self.Hz_geom, up=2)
        theta = misc.constant([[0.9, 0.1, 0.02], [-0.1, 0.9, 0.01]], device=device).to(dtype).repeat(batch, 1, 1)
        shape = [batch, channels, (height + pad * 2) * 2, (width + pad * 2) * 2]
        grid = torch.nn.functional.affine_grid(theta=theta, size=shape, align_corners=False)
        images = grid_sample_gradfix.grid_sample(images, grid)
        images = upfirdn2d.downsample2d(x=images, f=self.Hz_geom, down=2, padding=-pad * 2, flip_filter=True)
        images = images[:, :, :height, :width]

        taps = self.Hz_fbank.to(dtype).repeat(batch * channels, 1)
        half = taps.shape[1] // 2
        images = images.reshape(1, batch * channels, *images.shape[2:])
        images = torch.nn.functional.pad(input=images, pad=[half] * 4, mode="reflect")
        images = conv2d_gradfix.conv2d(input=images, weight=taps.unsqueeze(1).unsqueeze(2), groups=batch * channels)
        images = conv2d_gradfix.conv2d(input=images, weight=taps.unsqueeze(1).unsqueeze(3), groups=batch * channels)
        return images.reshape(batch, channels, *images.shape[2:])
