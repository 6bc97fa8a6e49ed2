"""The critic step with its penalties: cases of `gan_fast.bench.critic_step`."""

from __future__ import annotations

from gan_fast.bench import critic_step

SHORT_ROUND = (
    "critic_step/r1_r2/dcgan/channels_last/bfloat16",
    "critic_step/r1_r2/r3gan/channels_last",
    "critic_step/r1_phase/dcgan/nchw",
    "critic_step/wgan_gp/dcgan/channels_last",
)
CASES = critic_step.cases()
SMALL_CASES = [case for case in critic_step.cases(small=True) if case.name in SHORT_ROUND]


def test_critic_step(timed, case, contender):
    timed(case, contender)
