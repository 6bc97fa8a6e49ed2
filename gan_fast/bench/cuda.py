"""What only a card shows, at sizes that fill one: no case on a machine without.

    bias_act, upfirdn2d     at least 80 % of the speed of a copy of as many bytes
    filtered_lrelu          for comparison
    modulated_conv2d        at least 1.3 times cuDNN's faster formulation, at 128x128 and above
    a StyleGAN2 step        256x256, configuration `auto`: at least 1.5 times the eager reference

Which implementation serves a modulated convolution is measured in the warm-up (`gan_fast.triton.rule`);
GAN_FAST_MODULATED_CONV=triton or =shared times one of them. float32 convolutions are tf32 where torch allows it, so
what holds them is held to 10 bits of mantissa.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import torch

from gan_fast.bench import bias_act, filtered_lrelu, modulated_conv2d, stylegan2, upfirdn2d
from gan_fast.bench.cases import Case, Role

POINTWISE_SHAPE = (16, 128, 256, 256)
RESAMPLED_SHAPE = (16, 128, 128, 128)
CONVOLVED_SHAPES = ((8, 256, 128, 128), (8, 128, 256, 256))
AUTO_256 = {"resolution": 256, "batch": 16, "channel_base": 16384, "channel_max": 512, "half_resolutions": 4}
COPY_TARGET, EAGER_TARGET, STEP_TARGET = 0.8, 1.3, 1.5
TF32, STEP_TF32, STEP_BF16 = 5e-3, 0.1, 0.3


def cases() -> list[Case]:
    """All of them, or none."""
    return list(_cases()) if torch.cuda.is_available() else []


def _cases() -> Iterator[Case]:
    for name, layout in (("lrelu", "nchw"), ("lrelu", "channels_last"), ("epilogue", "channels_last")):
        for backward in (False, True):
            case = bias_act.case(name, layout, backward, POINTWISE_SHAPE)
            size = "x".join(map(str, POINTWISE_SHAPE))
            yield replace(case, name=f"{case.name}/{size}", targets={"copy": COPY_TARGET}, quick=False)
    for name in upfirdn2d.JOBS:
        for dtype, layout in ((torch.float32, "nchw"), (torch.bfloat16, "channels_last")):
            for backward in (False, True):
                case = upfirdn2d.case(name, dtype, layout, backward, RESAMPLED_SHAPE)
                yield replace(case, targets={"copy": COPY_TARGET}, quick=False)
    for backward in (False, True):
        yield replace(filtered_lrelu.case(backward=backward, shape=RESAMPLED_SHAPE), rtol=TF32)
    for shape in CONVOLVED_SHAPES:
        for case in modulated_conv2d.cases(shape):
            yield replace(case, targets={"eager": EAGER_TARGET}, rtol=max(case.rtol, TF32), quick=False)
    for case in stylegan2.cases(stylegan2.Setting(**AUTO_256)):
        rtol = STEP_BF16 if "bfloat16" in case.name else STEP_TF32
        targets: dict[Role, float] = {"reference": STEP_TARGET} if case.name.startswith("stylegan2_step") else {}
        yield replace(case, targets=targets, rtol=rtol, quick=False)
