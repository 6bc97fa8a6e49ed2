"""The DCGAN step: cases of `gan_fast.bench.dcgan`."""

from __future__ import annotations

from gan_fast.bench import dcgan

CASES = dcgan.cases()


def test_dcgan(timed, case, contender):
    timed(case, contender)
