"""The drop-ins and feature matching: cases of `gan_fast.bench.drop_in`."""

from __future__ import annotations

from gan_fast.bench import drop_in

CASES = drop_in.cases()


def test_drop_in(timed, case, contender):
    timed(case, contender)
