"""Resampling: cases of `gan_fast.bench.upfirdn2d`."""

from __future__ import annotations

from gan_fast.bench import upfirdn2d

CASES = upfirdn2d.cases()


def test_upfirdn2d(timed, case, contender):
    timed(case, contender)
