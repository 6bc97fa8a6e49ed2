"""The R3GAN step: cases of `gan_fast.bench.r3gan`."""

from __future__ import annotations

from gan_fast.bench import r3gan

CASES = r3gan.cases()


def test_r3gan(timed, case, contender):
    timed(case, contender)
