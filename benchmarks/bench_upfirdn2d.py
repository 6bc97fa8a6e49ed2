"""Resampling: cases of `gan_fast.bench.upfirdn2d`."""

from __future__ import annotations

from gan_fast.bench import upfirdn2d

CASES = upfirdn2d.cases()
SMALL_CASES = [case for case in CASES if case.name.startswith("upfirdn2d/filter") and "float32/nchw" in case.name]


def test_upfirdn2d(timed, case, contender):
    timed(case, contender)
