"""Bias, activation and what goes with them: cases of `gan_fast.bench.bias_act`."""

from __future__ import annotations

from gan_fast.bench import bias_act

CASES = bias_act.cases()
SMALL_CASES = bias_act.cases(small=True)


def test_bias_act(timed, case, contender):
    timed(case, contender)
