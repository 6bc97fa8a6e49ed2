"""The DCGAN step: cases of `gan_fast.bench.dcgan`."""

from __future__ import annotations

import pytest

from benchmarks.support import parameters
from gan_fast.bench import dcgan


@pytest.mark.parametrize(("case", "contender"), parameters(dcgan.cases()))
def test_dcgan(timed, case, contender):
    timed(case, contender)
