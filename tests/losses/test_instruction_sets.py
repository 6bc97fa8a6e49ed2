"""Every CPU kernel on every instruction set it was compiled for: baseline, AVX2, AVX-512."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import gan_fast
from gan_fast import losses
from support.adversarial_formulas import NAMES, Loss, gradient_scale, reduced, sp
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels
from support.reference_runner import agree, poisoned_memory
from support.strategies import draw_values
from support.tolerances import DTYPES, assert_close

pytestmark = needs_kernels
# Below, at and above one vector, one unrolled loop and one block of every width.
COUNTS = (1, 7, 9, 33, 64, 1025, 40_001)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_adversarial_losses(capability, dtype, name):
    with cpu_capability(capability):
        for count in COUNTS:
            real, fake = (draw_values((count,), "mixed", seed, dtype).requires_grad_() for seed in (1, 2))
            with poisoned_memory():
                value, stats = losses.get(name)().discriminator(real=real, fake=fake, with_stats=True)
                gradients = torch.autograd.grad(value, [real, fake])
            truth = reduced(Loss(name), [real.detach()], [fake.detach()])
            what = f"{name} of {count} on {capability}"
            assert_close(value, truth.value, kind="reduced", magnitude=truth.magnitude, what=what)
            expected = (truth.real_gradients[0], truth.fake_gradients[0])
            for got, exact in zip(gradients, expected, strict=True):
                scale = gradient_scale(name, exact, real, fake)
                assert_close(got, exact, kind="reduced", magnitude=scale, what=what)
            for got, x in ((stats.real_sign_mean, real), (stats.fake_sign_mean, fake)):
                assert_close(got, x.detach().double().sign().mean(), kind="reduced", magnitude=1.0, what=what)


@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_elementwise_kernels(capability, dtype):
    with cpu_capability(capability):
        for count in COUNTS:
            x, y = (draw_values((count,), kind, 3, dtype) for kind in ("wide", "normal"))
            t, p = y.sigmoid(), (y / 2).sigmoid().clamp(0.05, 0.95)
            agree(losses.logsigmoid, lambda a: -sp(-a), [x], second=False)
            loose = 2e-9 / (16 * torch.finfo(dtype).eps) if dtype == torch.float64 else 1.0  # softplus's threshold
            agree(losses.softplus, sp, [x], second=False, factor=loose)
            agree(
                lambda a, t=t: losses.binary_cross_entropy_with_logits(a, t),
                lambda a, t=t: (sp(a) - t.double() * a).mean(),
                [x],
                kind="reduced",
                value_magnitude=x.double().abs().mean(),
                gradient_magnitude=1 / count,
                second=False,
            )
            agree(
                lambda a, t=t: losses.binary_cross_entropy(a, t),
                lambda a, t=t: -(t.double() * a.log() + (1 - t.double()) * torch.log1p(-a)).mean(),
                [p],
                kind="reduced",
                value_magnitude=1.0,
                second=False,
            )
            agree(
                lambda a, y=y: losses.feature_matching(y, a),
                lambda a, y=y: (a - y.double()).abs().mean(),
                [x],
                kind="reduced",
                second=False,
            )


def test_the_environment_chooses_and_a_wrong_name_is_refused():
    script = "import gan_fast; print(gan_fast._C.cpu_capability())"
    folder = str(Path(gan_fast.__file__).parent.parent)
    asked = {**os.environ, "GAN_FAST_CPU_CAPABILITY": "default", "PYTHONPATH": folder}
    done = subprocess.run([sys.executable, "-c", script], env=asked, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "default"
    asked["GAN_FAST_CPU_CAPABILITY"] = "avx1024"
    done = subprocess.run([sys.executable, "-c", script], env=asked, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "avx1024" in done.stderr
    assert "default, avx2, avx512" in done.stderr
