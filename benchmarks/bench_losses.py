"""The adversarial losses: cases of `gan_fast.bench.losses`."""

from __future__ import annotations

from gan_fast.bench import losses

CASES = losses.cases()


def test_losses(timed, case, contender):
    timed(case, contender)
