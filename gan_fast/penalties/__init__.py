"""Penalties on a critic: what needs its gradient with respect to images, exact and at the lowest cost.

    stats = penalties.critic_backward(critic, real=x, fake=generator(z).detach(), loss=loss, r1=1.0, r2=1.0)
"""

from gan_fast.penalties.clipping import clip_weights_
from gan_fast.penalties.compiled import CompiledStepError, compile_step
from gan_fast.penalties.critic_step import critic_backward
from gan_fast.penalties.gradient import dragan_penalty, gradient_penalty, r1_penalty, r2_penalty
from gan_fast.penalties.lean import fast_double_backward
from gan_fast.penalties.minibatch import MinibatchDiscrimination, MinibatchStdDev
from gan_fast.penalties.path_length import PathLengthPenalty

__all__ = [
    "CompiledStepError",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "PathLengthPenalty",
    "clip_weights_",
    "compile_step",
    "critic_backward",
    "dragan_penalty",
    "fast_double_backward",
    "gradient_penalty",
    "r1_penalty",
    "r2_penalty",
]
