"""The seven adversarial losses, one class each: raw logits in, everything keyword-only.

Each loss is one elementwise term per side (see `gan_fast.reference.adversarial_loss` for the formulas), so the
classes below are data: the kind of term and its three numbers (p, scale, slope), for the critic and for the generator.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gan_fast import _C
from gan_fast._modes import plain_eager, use_reference
from gan_fast.reference import adversarial_loss as reference
from gan_fast.reference.adversarial_loss import Kind

Logits = Tensor | Sequence[Tensor]
Term = tuple[float, float, float]

_REDUCTIONS = {"none": reference.NONE, "mean": reference.MEAN, "sum": reference.SUM}
_NO_TERM: Term = (0.0, 0.0, 0.0)

# Looked up once: a critic's 64 logits cost less than the look-ups.
_adversarial_loss = torch.ops.gan_fast.adversarial_loss.default
_adversarial_terms = torch.ops.gan_fast.adversarial_terms.default


class Debts(NamedTuple):
    """Weight gradients of convolutions and linear layers in one critic step, by how they were computed."""

    deferred: int = 0
    """Left out of the first backward, to be computed with the penalty's in one pass."""
    swept: int = 0
    """Of these: not reached by the penalty and computed alone afterwards, such as a label network's."""
    reentered: int = 0
    """Layers that the penalty reached a second time through the forward graph, below a smooth layer: a pass more."""


class CriticStats(NamedTuple):
    """What a critic's step looks like from outside: detached 0-dim tensors on the logits' device, read when you like.

    Means are over all logits of all scales. `real_sign_mean` is the overfitting signal of Karras et al. 2020 (ADA).
    The loss is without penalties. What follows `fake_sign_mean` is filled in by `gan_fast.penalties.critic_backward`
    alone.
    """

    loss: Tensor
    real_mean: Tensor
    fake_mean: Tensor
    real_sign_mean: Tensor
    fake_sign_mean: Tensor
    r1: Tensor | None = None
    """r1/2 E |d logit / d real image|^2, the weighted penalty."""
    r2: Tensor | None = None
    """The same of the fake images."""
    fake_image_grad: Tensor | None = None
    """d generator loss / d fake images, `[N, C, H, W]`, where a generator loss was given."""
    plan: str | None = None
    """How the gradient was computed: "shared" or "autograd"."""
    debts: Debts | None = None
    """What became of the weight gradients of the shared plan."""
    generator_loss: Tensor | None = None
    """The generator loss, where one was given."""


def _critic_stats(values: Tensor) -> CriticStats:
    loss, real_mean, fake_mean, real_sign_mean, fake_sign_mean = values.unbind()
    return CriticStats(loss, real_mean, fake_mean, real_sign_mean, fake_sign_mean)


class LossTerms(NamedTuple):
    """The unreduced terms of a loss that has one for each side: tensors, or lists where the logits were lists."""

    real: Any
    fake: Any


_plain_loss = functools.lru_cache(maxsize=256)(_C.PlainLoss)


class AdversarialLoss:
    """Base of the adversarial losses.

    Logits are floating-point tensors of any shape and strides, `[N]`, `[N, 1]`, `[N, 1, H, W]`, or a list of such
    tensors (multi-scale critics). Several scales are summed, each reduced on its own.

    Reduced losses are 0-dim: float64 for float64 logits, otherwise float32 (terms of half-precision logits are computed
    and summed in float32). Gradients have the logits' dtype. First and second order in reverse mode; under
    `torch.func` transforms and forward-mode AD the reference runs.

    Args:
        reduction: "mean" or "sum" over the logits of a scale, or "none".

    Raises:
        ValueError: an unknown reduction; lists of different length; logits whose shapes, dtypes or devices do not fit.
    """

    name: ClassVar[str]
    generator_needs_real: ClassVar[bool] = False
    """Whether `generator` is a function of the real logits too, so that a training step must compute them."""

    kind: ClassVar[Kind]
    generator_kind: ClassVar[Kind]
    _real_term: Term = _NO_TERM
    _fake_term: Term = _NO_TERM
    _generator_real_term: Term = _NO_TERM
    _generator_term: Term = _NO_TERM

    def __init__(self, *, reduction: str = "mean") -> None:
        if reduction not in _REDUCTIONS:
            raise ValueError(f"reduction is {reduction!r}; expected one of 'none', 'mean', 'sum'")
        self.reduction = reduction
        self._reduction = _REDUCTIONS[reduction]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(reduction={self.reduction!r})"

    def discriminator(
        self,
        *,
        real: Logits,
        fake: Logits,
        real_weight: Logits | None = None,
        fake_weight: Logits | None = None,
        with_stats: bool = False,
    ) -> Any:
        """The loss the critic minimises.

        Args:
            real: logits of real samples, a tensor or a list of tensors (scales).
            fake: logits of generated samples, as many tensors; only paired losses need equal shapes.
            real_weight: constants that multiply the terms, `[N]` (one a sample) or of the logits' shape; a list for a
                list. Means still divide by the number of logits, as torch's `weight` does.
            fake_weight: the same for `fake`. A paired loss multiplies its terms by both.
            with_stats: also return `CriticStats`, from the same kernel.

        Returns:
            The 0-dim loss, or with `with_stats` the pair `(loss, CriticStats)`. With reduction "none" the terms in the
            logits' shape and dtype: `LossTerms(real, fake)`, or one tensor for a paired loss; lists where the logits
            were lists.
        """
        if (
            type(real) is type(fake) is Tensor
            and real_weight is fake_weight is None
            and self._reduction
            and not with_stats
            and plain_eager()
        ):
            return self._plain_loss().loss(real, fake)
        return self._evaluate(
            self.kind, self._real_term, self._fake_term, real, fake, real_weight, fake_weight, with_stats
        )

    def generator(
        self,
        *,
        fake: Logits,
        real: Logits | None = None,
        real_weight: Logits | None = None,
        fake_weight: Logits | None = None,
    ) -> Any:
        """The loss the generator minimises.

        Args:
            fake: logits of generated samples, a tensor or a list.
            real: logits of real samples. Required by the relativistic losses, ignored by the others, so that a
                training loop can be written once for all.
            real_weight: constants as in `discriminator`, for the relativistic losses.
            fake_weight: constants as in `discriminator`.

        Returns:
            The 0-dim loss; with reduction "none" the terms, as `discriminator` returns them.
        """
        if not self.generator_needs_real:
            real = real_weight = None
        elif real is None:
            raise ValueError(
                f"{type(self).__name__}.generator got no real logits; a relativistic loss compares fake with real: "
                "pass real=critic(real_images)"
            )
        return self._evaluate(
            self.generator_kind,
            self._generator_real_term,
            self._generator_term,
            real,
            fake,
            real_weight,
            fake_weight,
            False,
        )

    def logit_gradients(
        self, *, real: Logits, fake: Logits, real_weight: Logits | None = None, fake_weight: Logits | None = None
    ) -> tuple[Any, Any]:
        """d discriminator loss / d logits, without autograd: `(for real, for fake)`, in the logits' shapes and dtypes.

        For reduction "none" the derivative of each logit's own term (of their sum). Not differentiable.
        """
        if type(real) is type(fake) is Tensor and real_weight is fake_weight is None and plain_eager():
            return self._plain_loss().gradients(real, fake)
        lists = _as_lists(real, fake, real_weight, fake_weight)
        args = (*lists, self.kind.value, self._real_term, self._fake_term)
        # every logit has one term, so the gradient of the terms themselves is that of their sum
        reduction = self._reduction or reference.SUM
        if use_reference():
            reference.check(*args[:5])
            first = lists[1][0]
            one = torch.ones((), dtype=reference.accumulate_dtype(first), device=first.device)
            with torch.no_grad():
                out = reference.adversarial_loss_backward([one], *args, reduction)
        else:
            out = _adversarial_loss(*args, reduction, False, True)[2]
        n = len(lists[0])
        return (out[:n], out[n:]) if isinstance(fake, (list, tuple)) else (out[0], out[n])

    def _plain_loss(self) -> _C.PlainLoss:
        return _plain_loss(self.kind.value, self._real_term, self._fake_term, self._reduction or reference.SUM)

    def _evaluate(
        self,
        kind: Kind,
        real_term: Term,
        fake_term: Term,
        real: Logits | None,
        fake: Logits,
        real_weight: Logits | None,
        fake_weight: Logits | None,
        with_stats: bool,
    ) -> Any:
        args = (*_as_lists(real, fake, real_weight, fake_weight), kind.value, real_term, fake_term)
        if self._reduction == reference.NONE:
            return _unreduced(args, fake, with_stats)
        if use_reference():
            reference.check(*args[:5])
            loss, stats = reference.adversarial_loss(*args, self._reduction, with_stats)
        else:
            loss, stats, _ = _adversarial_loss(*args, self._reduction, with_stats, False)
        return (loss, _critic_stats(stats)) if with_stats else loss


def _unreduced(args: tuple[Any, ...], fake: Logits, with_stats: bool) -> Any:
    """The terms in the logits' dtype: a pair of both sides', or one side's; lists where the logits were lists."""
    reals, fakes = args[0], args[1]
    if use_reference():
        reference.check(*args[:5])
        terms = [t.to(fakes[0].dtype) for t in reference.adversarial_terms(*args)]
    else:
        terms = _adversarial_terms(*args)
    listed = isinstance(fake, (list, tuple))
    if args[4] == Kind.PAIR or not reals:
        result: Any = terms if listed else terms[0]
    else:
        real_terms, fake_terms = terms[: len(reals)], terms[len(reals) :]
        result = LossTerms(real_terms, fake_terms) if listed else LossTerms(real_terms[0], fake_terms[0])
    if not with_stats:
        return result
    with torch.no_grad():
        total = torch.stack([t.to(reference.accumulate_dtype(t)).sum() for t in terms]).sum()
        return result, _critic_stats(reference.statistics(total, reals, fakes))


def _as_list(logits: Logits | None) -> list[Tensor]:
    if isinstance(logits, Tensor):
        return [logits]
    if logits is None:
        return []
    if isinstance(logits, (list, tuple)) and all(isinstance(x, Tensor) for x in logits):
        return list(logits)
    raise TypeError(f"expected a tensor or a list of tensors, but got {type(logits).__name__}")


def _as_lists(
    real: Logits | None, fake: Logits, real_weight: Logits | None, fake_weight: Logits | None
) -> tuple[list[Tensor], list[Tensor], list[Tensor], list[Tensor]]:
    if isinstance(real, Tensor) and isinstance(fake, Tensor) and real_weight is None and fake_weight is None:
        return [real], [fake], [], []
    lists = _as_list(real), _as_list(fake), _as_list(real_weight), _as_list(fake_weight)
    if real is not None and isinstance(real, Tensor) != isinstance(fake, Tensor):
        raise ValueError("real and fake logits must both be tensors or both be lists of tensors")
    if not lists[1] or (real is not None and len(lists[0]) != len(lists[1])):
        raise ValueError(
            f"got {len(lists[0])} scales of real logits and {len(lists[1])} of fake; "
            "expected as many of each, at least one"
        )
    return lists


class MinimaxLoss(AdversarialLoss):
    """The original saturating game: D minimises -log s(r) - log(1 - s(f)), G minimises log(1 - s(f)), s the sigmoid.

    Source: Goodfellow et al. 2014, equation 1.
    """

    name = "minimax"
    kind = generator_kind = Kind.SOFTPLUS
    _real_term, _fake_term = (-1.0, 1.0, 0.0), (1.0, 1.0, 0.0)
    _generator_term = (1.0, -1.0, 0.0)


class NonSaturatingLoss(AdversarialLoss):
    """softplus(-r) + softplus(f) for D, softplus(-f) for G.

    Args:
        label_smoothing: one-sided smoothing; the real target is 1 - label_smoothing, in [0, 1) (Salimans et al. 2016).

    Source: Goodfellow et al. 2014, section 3.
    """

    name = "non_saturating"
    kind = generator_kind = Kind.SOFTPLUS
    _fake_term = (1.0, 1.0, 0.0)
    _generator_term = (-1.0, 1.0, 0.0)

    def __init__(self, *, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        if not 0.0 <= label_smoothing < 1.0:
            raise ValueError(f"label_smoothing is {label_smoothing}; expected a number in [0, 1), such as 0.1")
        self.label_smoothing = label_smoothing
        # binary cross entropy with target t = 1 - label_smoothing is softplus(-r) + (1 - t) r
        self._real_term = (-1.0, 1.0, float(label_smoothing))

    def __repr__(self) -> str:
        return f"NonSaturatingLoss(label_smoothing={self.label_smoothing}, reduction={self.reduction!r})"


class WassersteinLoss(AdversarialLoss):
    """-r + f for D, -f for G. Source: Arjovsky et al. 2017."""

    name = "wasserstein"
    kind = generator_kind = Kind.LINEAR
    _real_term, _fake_term = (0.0, -1.0, 0.0), (0.0, 1.0, 0.0)
    _generator_term = (0.0, -1.0, 0.0)


class HingeLoss(AdversarialLoss):
    """max(0, 1 - r) + max(0, 1 + f) for D, -f for G. Source: Lim and Ye 2017; Miyato et al. 2018."""

    name = "hinge"
    kind, generator_kind = Kind.HINGE, Kind.LINEAR
    _real_term, _fake_term = (-1.0, 1.0, 0.0), (1.0, 1.0, 0.0)
    _generator_term = (0.0, -1.0, 0.0)


class LeastSquaresLoss(AdversarialLoss):
    """(r - b)^2 / 2 + (f - a)^2 / 2 for D, (f - c)^2 / 2 for G.

    Args:
        a: the target of fake logits in D's loss.
        b: the target of real logits in D's loss.
        c: the target of fake logits in G's loss.

    Source: Mao et al. 2017, equation 2, with its factor 1/2.
    """

    name = "least_squares"
    kind = generator_kind = Kind.SQUARE

    def __init__(self, *, a: float = 0.0, b: float = 1.0, c: float = 1.0, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.a, self.b, self.c = float(a), float(b), float(c)
        self._real_term, self._fake_term = (self.b, 1.0, 0.0), (self.a, 1.0, 0.0)
        self._generator_term = (self.c, 1.0, 0.0)

    def __repr__(self) -> str:
        return f"LeastSquaresLoss(a={self.a}, b={self.b}, c={self.c}, reduction={self.reduction!r})"


class RelativisticLoss(AdversarialLoss):
    """The pairing form: softplus(-(r_i - f_i)) for D, softplus(r_i - f_i) for G; shapes of real and fake are equal.

    Source: Jolicoeur-Martineau 2018 (RSGAN); Huang et al. 2024 (R3GAN).
    """

    name = "relativistic"
    generator_needs_real = True
    kind = generator_kind = Kind.PAIR
    _real_term = (-1.0, 1.0, 0.0)
    _generator_real_term = (1.0, 1.0, 0.0)


class RelativisticAverageLoss(AdversarialLoss):
    """softplus(-(r - mean f)) + softplus(f - mean r) for D; for G with real and fake exchanged.

    The means are over the logits of one scale in this call. Under gradient accumulation they are those of the
    micro-batch.

    Source: Jolicoeur-Martineau 2018 (RaSGAN), without a further factor 1/2.
    """

    name = "relativistic_average"
    generator_needs_real = True
    kind = generator_kind = Kind.AVERAGE
    _real_term, _fake_term = (-1.0, 1.0, 0.0), (1.0, 1.0, 0.0)
    _generator_real_term, _generator_term = (1.0, 1.0, 0.0), (-1.0, 1.0, 0.0)


LOSSES: dict[str, type[AdversarialLoss]] = {
    cls.name: cls
    for cls in (
        MinimaxLoss,
        NonSaturatingLoss,
        WassersteinLoss,
        HingeLoss,
        LeastSquaresLoss,
        RelativisticLoss,
        RelativisticAverageLoss,
    )
}


def get(name: str) -> type[AdversarialLoss]:
    """The class of the adversarial loss called `name`; ValueError lists the names where there is none."""
    if name not in LOSSES:
        raise ValueError(f"no adversarial loss is called {name!r}; expected one of {', '.join(LOSSES)}")
    return LOSSES[name]


def evaluate_single(kind: Kind, term: Term, logits: Logits) -> Tensor:
    """The mean of one term over each tensor of `logits`, summed over the tensors."""
    none: list[Tensor] = []
    args = (none, _as_list(logits), none, none, kind.value, _NO_TERM, term, reference.MEAN, False)
    if use_reference():
        reference.check(*args[:5])
        return reference.adversarial_loss(*args)[0]
    return _adversarial_loss(*args, False)[0]
