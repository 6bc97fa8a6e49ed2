"""The adversarial losses: cases of `gan_fast.bench.losses`."""

from __future__ import annotations

import pytest

from benchmarks.support import parameters
from gan_fast.bench import losses


@pytest.mark.parametrize(("case", "contender"), parameters(losses.cases()))
def test_losses(timed, case, contender):
    timed(case, contender)
