"""Modulated convolution: cases of `gan_fast.bench.modulated_conv2d`."""

from __future__ import annotations

from gan_fast.bench import modulated_conv2d

CASES = modulated_conv2d.cases()
SMALL_CASES = modulated_conv2d.cases((2, 16, 8, 8))


def test_modulated_conv2d(timed, case, contender):
    timed(case, contender)
