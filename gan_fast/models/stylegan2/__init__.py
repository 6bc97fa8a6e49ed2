"""StyleGAN2: G = synthesis o mapping, z `[N, z_dim]` to images `[N, C, R, R]`;  D: images to logits `[N, 1]`.

Any power-of-two resolution, architectures orig, skip and resnet, class-conditional. Names of parameters, buffers and
arguments are those of StyleGAN2-ADA's PyTorch networks, so that its weights load directly. Sources: Karras et al.,
"A Style-Based Generator Architecture for GANs", 2019; "Analyzing and Improving the Image Quality of StyleGAN", 2020;
"Training Generative Adversarial Networks with Limited Data", 2020.
"""

from __future__ import annotations

from gan_fast.models.stylegan2.conversion import convert, read_networks
from gan_fast.models.stylegan2.discriminator import Discriminator
from gan_fast.models.stylegan2.mapping import MappingNetwork
from gan_fast.models.stylegan2.pickles import PickleError
from gan_fast.models.stylegan2.synthesis import NOISE_MODES, Generator, SynthesisNetwork
from gan_fast.models.stylegan2.weights import WeightsError, load, load_generator, load_network, save

__all__ = [
    "NOISE_MODES",
    "Discriminator",
    "Generator",
    "MappingNetwork",
    "PickleError",
    "SynthesisNetwork",
    "WeightsError",
    "build",
    "convert",
    "load",
    "load_generator",
    "load_network",
    "read_networks",
    "save",
]


def build(
    resolution: int = 64,
    channels: int = 3,
    *,
    latent_dim: int = 512,
    w_dim: int = 512,
    classes: int = 0,
    mapping_layers: int = 8,
    channel_base: int = 32768,
    channel_max: int = 512,
    generator_architecture: str = "skip",
    critic_architecture: str = "resnet",
    num_fp16_res: int = 0,
    low_precision: str = "fp16",
    conv_clamp: float | None = None,
    channels_last: bool | None = None,
    mbstd_group_size: int | None = 4,
    mbstd_channels: int = 1,
    critic_mapping_layers: int = 8,
    freeze_layers: int = 0,
) -> tuple[Generator, Discriminator]:
    """The pair. The defaults are the paper's configuration F at any resolution, in float32.

    Args:
        latent_dim, w_dim: lengths of z and w.
        classes: length of the class vector c; 0 for unconditional networks.
        mapping_layers: of the generator's mapping network.
        critic_mapping_layers: of the critic's, which maps classes alone.
        channel_base, channel_max: feature maps at a side R: channel_base / R, at most channel_max.
        num_fp16_res, low_precision: the so many highest resolutions run in "fp16" or "bf16".
        conv_clamp: clamp of every layer's output; 256 is what fp16 needs.
        mbstd_group_size, mbstd_channels: of the critic's minibatch deviation; 0 channels for none.
        freeze_layers: of the critic, from the highest resolution on.
    """
    generator = Generator(
        latent_dim,
        classes,
        w_dim,
        resolution,
        channels,
        mapping_kwargs={"num_layers": mapping_layers},
        synthesis_kwargs={
            "channel_base": channel_base,
            "channel_max": channel_max,
            "num_fp16_res": num_fp16_res,
            "low_precision": low_precision,
            "conv_clamp": conv_clamp,
            "channels_last": channels_last,
            "architecture": generator_architecture,
        },
    )
    critic = Discriminator(
        classes,
        resolution,
        channels,
        architecture=critic_architecture,
        channel_base=channel_base,
        channel_max=channel_max,
        num_fp16_res=num_fp16_res,
        conv_clamp=conv_clamp,
        block_kwargs={"freeze_layers": freeze_layers},
        mapping_kwargs={"num_layers": critic_mapping_layers},
        epilogue_kwargs={"mbstd_group_size": mbstd_group_size, "mbstd_num_channels": mbstd_channels},
        low_precision=low_precision,
        channels_last=channels_last,
    )
    return generator, critic
