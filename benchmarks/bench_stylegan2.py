"""A whole StyleGAN2 step: cases of `gan_fast.bench.stylegan2`."""

from __future__ import annotations

from gan_fast.bench import stylegan2

CASES = stylegan2.cases()
SMALL_CASES = stylegan2.cases(stylegan2.Setting(resolution=16, batch=4, channel_base=64, channel_max=8))


def test_stylegan2(timed, case, contender):
    timed(case, contender)
