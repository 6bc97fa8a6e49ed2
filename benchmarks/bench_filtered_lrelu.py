"""filtered_lrelu: cases of `gan_fast.bench.filtered_lrelu`."""

from __future__ import annotations

from gan_fast.bench import filtered_lrelu

CASES = filtered_lrelu.cases()


def test_filtered_lrelu(timed, case, contender):
    timed(case, contender)
