"""Gradient penalties of a given gradient: cases of `gan_fast.bench.penalties`."""

from __future__ import annotations

from gan_fast.bench import penalties

CASES = penalties.cases()


def test_penalties(timed, case, contender):
    timed(case, contender)
