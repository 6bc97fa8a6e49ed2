"""A whole StyleGAN2 step at 64x64: channel base 8192, at most 256 channels, batch 8, Adam included.

    critic     softplus(-D(x)) + softplus(D(G(z)))  [+ R1]        generator    softplus(-D(G(z)))  [+ path length]

Every contender runs the same step of the same networks with the same initial weights:

    gan_fast         the models as they are
    reference        the same under `gan_fast.reference_mode()`: what the papers write, in plain PyTorch
    eager            the best composition of PyTorch's own functions that we could write (`plain_stylegan2.py`)
    torch.compile    that composition compiled
    convolutions alone    the products of our step with nothing between them: the floor

Weights lie channels_last, as the images do, but for the reference's: per-sample weights are made of them, which takes a
tenth longer so. In bfloat16 every block from 8x8 up (or the `half_resolutions` largest) computes in it, the parameters
stay float32. The first step is held against the reference in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import penalties, reference_mode
from gan_fast.bench.cases import Case, Contender, Prepared, Role
from gan_fast.bench.floor import convolutions_alone
from gan_fast.bench.plain_stylegan2 import composed

Kind = Literal["step", "r1", "path_length"]
Module = Callable[..., Tensor]
FLOOR = "convolutions alone"
R1_WEIGHT, PATH_WEIGHT, PATH_LENGTH, PATH_BATCH = 1.0, 2.0, 0.5, 4


class Setting:
    """Networks and their inputs, the same for every contender of one size."""

    def __init__(
        self,
        resolution: int = 64,
        batch: int = 8,
        channel_base: int = 8192,
        channel_max: int = 256,
        half_resolutions: int = 16,
    ) -> None:
        self.resolution, self.batch, self.channel_base, self.channel_max = resolution, batch, channel_base, channel_max
        self.half_resolutions = half_resolutions

    def networks(
        self, device: torch.device, dtype: torch.dtype, memory_format: torch.memory_format = torch.channels_last
    ) -> tuple[Any, Any]:
        """Parameters in float32 (float64 where `dtype` is), noise strengths that matter."""
        from gan_fast.models import stylegan2

        low = self.half_resolutions if dtype == torch.bfloat16 else 0
        with torch.random.fork_rng():
            torch.manual_seed(0)
            generator, critic = stylegan2.build(
                self.resolution,
                channel_base=self.channel_base,
                channel_max=self.channel_max,
                num_fp16_res=low,
                low_precision="bf16",
            )
        with torch.no_grad():
            for name, parameter in generator.named_parameters():
                if name.endswith("noise_strength"):
                    parameter.fill_(0.1)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        generator.to(device, wide).to(memory_format=memory_format).train()
        critic.to(device, wide).to(memory_format=memory_format).train()
        return generator, critic

    def inputs(self, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """Images and latents."""
        numbers = torch.Generator().manual_seed(1)
        side = self.resolution
        images = torch.rand(self.batch, 3, side, side, generator=numbers) * 2 - 1
        latents = torch.randn(self.batch, 512, generator=numbers)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        return images.to(device, wide), latents.to(device, wide)


def step(
    kind: Kind,
    setting: Setting,
    device: torch.device,
    dtype: torch.dtype,
    context: Callable[[], AbstractContextManager[None]] = nullcontext,
    wrap: Callable[[nn.Module], Module] = lambda module: module,
    memory_format: torch.memory_format = torch.channels_last,
) -> Callable[[], Sequence[Tensor]]:
    """One G+D step; the job returns losses, logits and two gradients."""
    generator, critic = setting.networks(device, dtype, memory_format)
    images, latents = setting.inputs(device, dtype)
    mapping, synthesis, score = generator.mapping, wrap(generator.synthesis), wrap(critic)
    last, first = critic.b4.conv.weight, generator.synthesis.b8.conv0.weight
    adam = [torch.optim.Adam(m.parameters(), lr=1e-4, betas=(0.0, 0.99), fused=True) for m in (generator, critic)]
    noise = torch.randn(images[:PATH_BATCH].shape, generator=torch.Generator().manual_seed(2)).to(images)

    def imagine(z: Tensor) -> tuple[Tensor, Tensor]:
        ws = mapping(z)
        return synthesis(ws, noise_mode="const"), ws

    def critic_phase() -> list[Tensor]:
        adam[1].zero_grad()
        with torch.no_grad():
            fake, _ = imagine(latents)
        false = score(fake)
        loss = F.softplus(false).mean()
        loss.backward()
        of_fake = last.grad.clone()
        real = images.detach().requires_grad_(kind == "r1")
        true = score(real)
        loss_real = F.softplus(-true).mean()
        if kind == "r1":
            loss_real = loss_real + penalties.r1_penalty(true, real, R1_WEIGHT)
        loss_real.backward()
        of_real = last.grad - of_fake  # the two nearly cancel in a critic that knows nothing: each by itself
        adam[1].step()
        return [loss.detach() + loss_real.detach(), true.detach(), false.detach(), of_fake, of_real]

    def generator_phase() -> list[Tensor]:
        adam[0].zero_grad()
        critic.requires_grad_(False)
        fake, _ = imagine(latents)
        loss = F.softplus(-score(fake)).mean()
        loss.backward()
        critic.requires_grad_(True)
        if kind == "path_length":
            pictures, ws = imagine(latents[:PATH_BATCH])
            (pulled,) = torch.autograd.grad((pictures * noise).sum() / setting.resolution, ws, create_graph=True)
            penalty = PATH_WEIGHT * (pulled.square().sum(2).mean(1).sqrt() - PATH_LENGTH).square().mean()
            penalty.backward()
            loss = loss + penalty.detach()
        gradient = first.grad.clone()
        adam[0].step()
        return [loss.detach(), fake.detach(), gradient]

    def run() -> Sequence[Tensor]:
        with context():
            return [*critic_phase(), *generator_phase()]

    return run


def _case(kind: Kind, dtype: torch.dtype, setting: Setting, full: bool) -> Case:
    narrow = dtype == torch.bfloat16
    names = ["gan_fast", "reference", "eager"]
    names += ["reference, float32"] if narrow else []
    with_compile = kind == "step" and full
    names += ["torch.compile"] if with_compile else []
    names += [FLOOR]

    def build(device: torch.device) -> Prepared:
        def job(*args: Any, dtype: torch.dtype = dtype) -> Callable[[], Sequence[Tensor]]:
            return step(kind, setting, device, dtype, *args)

        def reference(dtype: torch.dtype) -> Callable[[], Sequence[Tensor]]:
            return step(kind, setting, device, dtype, reference_mode, memory_format=torch.contiguous_format)

        floor = convolutions_alone(job())
        contenders = [
            Contender("gan_fast", "ours", job()),
            Contender("reference", "reference", reference(dtype)),
            Contender("eager", "eager", job(composed)),
        ]
        if narrow:
            contenders.append(Contender("reference, float32", "wide reference", reference(torch.float32)))
        if with_compile:
            contenders.append(Contender("torch.compile", "compiled", job(composed, torch.compile), slow=True))
        contenders.append(Contender(FLOOR, "other", floor, check=lambda: 0.0))
        truth = reference(torch.float64)()
        critic = setting.networks(device, dtype)[1]
        images = setting.inputs(device, dtype)[0]
        return Prepared(tuple(contenders), tuple(t.clone() for t in truth), one_pass=lambda: critic(images))

    side = setting.resolution
    targets: dict[Role, float] = {"reference": 1.4, "eager": 1.0}
    if narrow:
        targets["wide reference"] = 4.0
    return Case(
        name=f"stylegan2_{kind}/{setting.batch}x3x{side}x{side}/{str(dtype).removeprefix('torch.')}",
        group="StyleGAN2 step",
        size=setting.batch,
        traffic=0,
        contenders=tuple(names),
        build=build,
        targets=targets if full else {},
        # Kinks of leaky ReLUs flip under rounding. At full size bfloat16 is within 0.06 of float64 and float32 within
        # 6e-4, the reference as well; a network of few channels has less to average over.
        rtol=(0.2 if full else 1.0) if narrow else 5e-3,
        least_rounds=5,
        quick=not full,
    )


def cases(setting: Setting | None = None) -> list[Case]:
    """The step without lazy regularisation, and with each regulariser, in float32 and bfloat16."""
    size = setting or Setting()
    kinds: tuple[Kind, ...] = ("step", "r1", "path_length")
    return [_case(kind, dtype, size, setting is None) for dtype in (torch.float32, torch.bfloat16) for kind in kinds]
