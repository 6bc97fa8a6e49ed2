"""3x3 convolutions: cases of `gan_fast.bench.convolution`."""

from __future__ import annotations

from gan_fast.bench import convolution

CASES = convolution.cases()
SMALL_CASES = convolution.cases([(2, 24, 24, 24)])


def test_conv2d(timed, case, contender):
    timed(case, contender)
