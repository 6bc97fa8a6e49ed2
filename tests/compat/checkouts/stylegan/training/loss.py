"""Non-saturating losses with R1 and path length, in the calls of StyleGAN2-ADA's and StyleGAN3's."""

import numpy as np
import torch
from torch_utils.ops import conv2d_gradfix, upfirdn2d


def blur(image):
    taps = torch.arange(-2, 3, device=image.device).div(2).square().neg().exp2()
    return upfirdn2d.filter2d(image, taps / taps.sum())


class Loss:
    def __init__(self, generator, discriminator, augment=None):
        self.generator, self.discriminator, self.augment = generator, discriminator, augment
        self.pl_mean = torch.zeros([])

    def logits(self, image):
        image = blur(image)
        return self.discriminator(self.augment(image) if self.augment is not None else image)

    def train_generator(self, z):
        torch.nn.functional.softplus(-self.logits(self.generator(z))).mean().backward()

    def train_discriminator(self, real, z):
        with torch.no_grad():
            fake = self.generator(z)
        torch.nn.functional.softplus(self.logits(fake)).mean().backward()
        real = real.detach().requires_grad_(True)
        logits = self.logits(real)
        with torch.autograd.profiler.record_function("r1_grads"), conv2d_gradfix.no_weight_gradients():
            grads = torch.autograd.grad(outputs=[logits.sum()], inputs=[real], create_graph=True, only_inputs=True)[0]
        penalty = grads.square().sum([1, 2, 3])
        (torch.nn.functional.softplus(-logits).mean() + penalty.mul(0.5).mean()).backward()

    def path_length(self, z, noise):
        ws = self.generator.mapping(z).unsqueeze(1).repeat(1, 3, 1)
        image = self.generator.synthesis(ws)
        noise = noise / np.sqrt(image.shape[2] * image.shape[3])
        with torch.autograd.profiler.record_function("pl_grads"), conv2d_gradfix.no_weight_gradients(True):
            grads = torch.autograd.grad(
                outputs=[(image * noise).sum()], inputs=[ws], create_graph=True, only_inputs=True
            )[0]
        lengths = grads.square().sum(2).mean(1).sqrt()
        mean = self.pl_mean.lerp(lengths.mean(), 0.01)
        self.pl_mean.copy_(mean.detach())
        ((lengths - mean).square().mean() + image[:, 0, 0, 0].mean() * 0).backward()
