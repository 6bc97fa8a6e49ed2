"""The critic step with its penalties: cases of `gan_fast.bench.critic_step`."""

from __future__ import annotations

from gan_fast.bench import critic_step

CASES = critic_step.cases()
SMALL_CASES = critic_step.cases(small=True)


def test_critic_step(timed, case, contender):
    timed(case, contender)
