"""The exact critic step: d/dtheta of  loss(D(x), D(y)) + r1/2 E|grad_x D(x)|^2 + r2/2 E|grad_y D(y)|^2  into `.grad`.

Plan "shared", four passes over the batch where layers are piecewise linear, by deferred weight gradients:

    o = D(cat(x, y))                    forward
    s = d loss / d o                    known before any backward; exact zeros become something tiny
    G_i = s_i g_i                       first backward, seeded with s: the image gradients g_i = G_i / s_i, and the
                                        loss's gradient of every parameter, except the weights that owe theirs
    G with cotangent w_i g_i / s_i      second backward, w_i = r/N: the penalty's gradient, and the debts
    the debts that are left             swept

A layer y = A(x; w) that must return dx owes its dw = A*(x, dy) in the first backward; the second brings it the tangent
t of dx, and it pays A*(x + t, dy), loss and penalty in one product (`csrc/common/bilinear.h`). That is exact for every
critic with one logit a sample whose samples do not mix, whatever its layers; which layers defer decides the cost alone.

Plan "autograd" is the formula as it is written, for any critic.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from gan_fast import _C
from gan_fast._average import average_gradients
from gan_fast._modes import use_reference
from gan_fast.losses import AdversarialLoss, CriticStats, Debts
from gan_fast.penalties._critics import OnePowerIteration, Unwrapped, both, eager, say_once, sides, unwrap
from gan_fast.penalties._mixing import describe_logits, one_logit_each, why_not_shared
from gan_fast.penalties.lean import Lean
from gan_fast.penalties.lean import gradients as gradients_with_modes

Plan = Literal["auto", "shared", "autograd"]
Kwargs = Mapping[str, Any]

# |s_i| is at least this share of the largest: small enough to leave the loss alone, large enough to divide by.
_FLOOR = {torch.float64: 2.0**-200, torch.float16: 2.0**-10}
_LEAST = {torch.float64: 2.0**-200, torch.float16: 2.0**-20}
# In float16 the cotangents' sum is brought to this power of two, exactly, and the gradients back: large enough that
# the images' gradients do not underflow, small enough that weights' gradients, which sum over samples, do not overflow.
_HALF_COTANGENT = 8
# Loss cotangents below this share of the penalty's weight count as vanishing; their floor then goes by the weight.
_VANISHING, _HALF_WEIGHT = 2.0**-4, 2.0**-4


def critic_backward(
    critic: nn.Module | Sequence[nn.Module],
    *,
    real: Tensor,
    fake: Tensor,
    loss: AdversarialLoss,
    r1: float = 0.0,
    r2: float = 0.0,
    critic_kwargs: Kwargs | Sequence[Kwargs] | None = None,
    augment: Callable[[Tensor], Tensor] | None = None,
    generator_loss: AdversarialLoss | None = None,
    real_weight: Tensor | None = None,
    fake_weight: Tensor | None = None,
    scale: float | Tensor = 1.0,
    sync: bool = True,
    plan: Plan = "auto",
) -> CriticStats:
    """Accumulate the exact gradient of loss + r1/2 R1 + r2/2 R2 into `.grad` of the critic's parameters.

    R1 = E |d logit / d x|^2 over real images, R2 over fake ones; of several logits a sample, of their sum.

    Args:
        critic: scores images, called as `critic(augment(images), **critic_kwargs)`; or a list of critics, whose losses
            and penalties are added. Every parameter that requires grad and has an influence gets a gradient. One
            wrapped in DistributedDataParallel is unwrapped and its gradients are averaged here; of a compiled one the
            uncompiled module runs.
        real: `[N, ...]` real images, constants, float64, float32, bfloat16 or float16.
        fake: `[M, ...]` generated images, constants; M = N for paired losses. Of another floating dtype (a generator
            under autocast) they are converted to that of `real`.
        loss: of `gan_fast.losses`, reduction "mean" or "sum".
        r1: weight of R1; 0 for none.
        r2: weight of R2; 0 for none.
        critic_kwargs: further arguments of the critic: one mapping for both sides, or a pair (for real, for fake).
            Tensors whose first dimension is the batch size have one row a sample.
        augment: differentiable, sample by sample, to second order; penalties and `fake_image_grad` are at the images
            before it.
        generator_loss: also return d generator_loss / d fake images at this critic, `stats.fake_image_grad`, for
            nothing, and its value, `stats.generator_loss`: simultaneous gradient descent without a critic pass for
            the generator.
        real_weight: constants that multiply the loss's terms, not the penalty's, as in `loss.discriminator`.
        fake_weight: the same for fake images.
        scale: multiplies all gradients that are accumulated: GradScaler's scale, or n_micro / n_total under gradient
            accumulation. A number or a 0-dim tensor on the device. `stats` are without it.
        sync: average the gradients of a DistributedDataParallel critic now; False for all but the last micro-batch.
        plan: "shared" for the four passes, "autograd" for the formula as written, "auto" for shared where the critic
            allows it; where not, the reason is said once.

    Returns:
        `CriticStats`, detached, with `r1` and `r2` (weighted), `plan` and `debts`.

    Raises:
        TypeError: the critic is no module, or is sharded by FSDP.
        ValueError: under plan "shared" a critic that mixes samples or does not give one logit a sample; an empty
            batch, images that do not fit together or lie on another device than the critic, negative weights.
        RuntimeError: called under `torch.no_grad()` or `torch.inference_mode()`.

    `.grad` is written at the end: after an error it is as before. One call is one power iteration of spectral norm in
    every plan. Losses that couple the batch (`relativistic_average`) do so within one call. Not differentiable itself.

    Source: R1 and R2, Mescheder, Geiger and Nowozin 2018; the shared plan, docs/exact-critic-step.md.
    """
    if plan not in ("auto", "shared", "autograd"):
        raise ValueError(f"plan is {plan!r}; expected 'auto', 'shared' or 'autograd'")
    _check(real, fake, loss, generator_loss, r1, r2)
    real, fake_dtype, fake = real.detach(), fake.dtype, fake.detach().to(real.dtype)
    critics = [critic] if isinstance(critic, nn.Module) else critic
    if not isinstance(critics, (list, tuple, nn.ModuleList)) or not len(critics):
        raise TypeError(f"critic is a {type(critic).__name__}; expected a torch.nn.Module, or a list of them")
    results = []
    for each in critics:
        step = _Step(unwrap(each), real, fake, loss, r1, r2, sides(critic_kwargs, real.device), augment, generator_loss)
        step.weights = {"real_weight": real_weight, "fake_weight": fake_weight}
        results.append(step.run(scale, sync, plan))
    stats = results[0] if len(results) == 1 else _sum(results)
    if stats.fake_image_grad is not None:
        stats = stats._replace(fake_image_grad=stats.fake_image_grad.to(fake_dtype))
    return stats


def _check(
    real: Tensor, fake: Tensor, loss: AdversarialLoss, generator_loss: AdversarialLoss | None, r1: float, r2: float
) -> None:
    # inference mode cannot be asked for while torch.compile traces, which it never does inside it
    if not torch.is_grad_enabled() or (not torch.compiler.is_compiling() and torch.is_inference_mode_enabled()):
        raise RuntimeError("critic_backward was called under torch.no_grad(): it needs autograd; call it outside")
    if real.dim() < 2 or fake.dim() != real.dim() or real.shape[1:] != fake.shape[1:]:
        raise ValueError(
            f"real images have shape {list(real.shape)} and fake ones {list(fake.shape)}; expected [N, ...] of which "
            "only N differs"
        )
    if not len(real) or not len(fake):
        raise ValueError(f"an empty batch: {len(real)} real and {len(fake)} fake images; give at least one of each")
    if not (real.is_floating_point() and fake.is_floating_point()):
        raise ValueError(f"images are {real.dtype} and {fake.dtype}; expected floating-point images")
    if real.device != fake.device:
        raise ValueError(f"real images are on {real.device} and fake ones on {fake.device}; put them on one device")
    if not (r1 >= 0 and r2 >= 0):
        raise ValueError(f"r1 is {r1} and r2 is {r2}; expected weights of at least 0")
    for name, each in (("loss", loss), ("generator_loss", generator_loss)):
        reduction = getattr(each, "reduction", "mean")
        if reduction not in ("mean", "sum"):
            raise ValueError(f"{name} has reduction {reduction!r}; expected 'mean' or 'sum'")


def _sum(results: Sequence[CriticStats]) -> CriticStats:
    """Of a list of critics, which see as many images each: losses and penalties added, logits averaged."""

    def added(name: str) -> Any:
        values = [getattr(stats, name) for stats in results]
        return None if values[0] is None else torch.stack(values).sum(0)

    def averaged(name: str) -> Tensor:
        return torch.stack([getattr(stats, name) for stats in results]).mean()

    means = {name: averaged(name) for name in ("real_mean", "fake_mean", "real_sign_mean", "fake_sign_mean")}
    sums = {name: added(name) for name in ("loss", "r1", "r2", "fake_image_grad", "generator_loss")}
    debts = Debts(*(sum(counts) for counts in zip(*(stats.debts or Debts() for stats in results), strict=True)))
    plans = {stats.plan for stats in results}
    return CriticStats(**means, **sums, plan="shared" if plans == {"shared"} else "autograd", debts=debts)


class _Step:
    """One critic's step."""

    weights: dict[str, Any]
    leaves: list[GradientEdge]

    def __init__(
        self,
        unwrapped: Unwrapped,
        real: Tensor,
        fake: Tensor,
        loss: AdversarialLoss,
        r1: float,
        r2: float,
        kwargs: tuple[Kwargs, Kwargs],
        augment: Callable[[Tensor], Tensor] | None,
        generator_loss: AdversarialLoss | None,
    ) -> None:
        self.critic, self.group, self.compiled = unwrapped
        self.real, self.fake, self.loss, self.r1, self.r2 = real, fake, loss, r1, r2
        self.kwargs, self.augment, self.generator_loss = kwargs, augment, generator_loss
        self.penalised = bool(r1 or r2)
        self.parameters = [p for p in self.critic.parameters() if p.requires_grad]
        if not self.parameters:
            raise ValueError("no parameter of the critic requires grad: call critic.requires_grad_() before its step")
        where = {p.device for p in self.critic.parameters()}
        if where != {real.device}:
            raise ValueError(
                f"images are on {real.device} and the critic on {', '.join(sorted(map(str, where)))}; "
                "put them on one device"
            )

    def run(self, scale: float | Tensor, sync: bool, plan: Plan) -> CriticStats:
        if torch.compiler.is_compiling():
            if plan == "shared":
                raise ValueError(
                    "plan 'shared' cannot be traced by torch.compile: call critic_backward outside, or use 'autograd'"
                )
            return self._traced(scale)
        factor: float | Tensor
        self.leaves = [get_gradient_edge(p) for p in self.parameters]
        with self._as_modules_run():
            reason = "" if plan == "autograd" else self._why_not_shared(plan)
            if plan == "autograd" or reason:
                stats, gradients, factor = self._autograd()
            else:
                stats, gradients, factor = self._shared()
            self._accumulate(gradients, scale, factor)
        if self.group is not None and sync:
            average_gradients(self.parameters, self.group)
        return stats

    def _why_not_shared(self, plan: Plan) -> str:
        if any(p._backward_hooks for p in self.parameters):
            reason = "a parameter has a hook, which the shared plan would show the gradient in parts"
        else:
            reason = why_not_shared(self.critic, self.real, self.fake, self.kwargs, self.augment, self.group)
        if reason and plan == "shared":
            raise ValueError(
                f"plan 'shared' does not fit {type(self.critic).__name__}: {reason}. Use plan='autograd' or 'auto'"
            )
        if reason:
            say_once(self.critic, f"critic_backward uses plan 'autograd' for {type(self.critic).__name__}: {reason}")
        return reason

    @contextlib.contextmanager
    def _as_modules_run(self) -> Iterator[None]:
        """Uncompiled; attention by products, which alone has a double backward; every backward on this thread.

        On this thread: a checkpointed critic runs its forward again during a backward, and must meet the same layers.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(eager(self.compiled))
            stack.enter_context(torch.autograd.set_multithreading_enabled(False))
            if self.penalised:
                stack.enter_context(torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH))
            yield

    def _score(self, images: Tensor, kwargs: Kwargs) -> Any:
        with _lean_layers():
            return self.critic(self.augment(images) if self.augment else images, **kwargs)

    # ---- the shared plan

    def _shared(self) -> tuple[CriticStats, list[Tensor | None], Tensor | float]:
        n, m = len(self.real), len(self.fake)
        images = torch.cat([self.real, self.fake])
        with_images = self.penalised or self.generator_loss is not None
        images.requires_grad_(with_images)
        ledger = _C.Ledger()
        ledger.attach(images)
        try:
            logits = self._score(images, both(*self.kwargs, n, m))
        finally:
            ledger.detach()
        if not one_logit_each(logits, n + m):
            raise ValueError(f"the critic gave {describe_logits(logits)} for {n + m} images; expected one logit each")
        stats, c = self._cotangents(logits.detach(), n)
        dtype = torch.float16 if ledger.half else logits.dtype
        s, factor = self._seeds(c, dtype, max(self.r1 / n, self.r2 / m), with_images)
        wanted: list[Tensor | GradientEdge] = [images, *self.leaves] if with_images else [*self.leaves]
        ledger.first = self.penalised
        try:
            first = _gradients([logits], wanted, [s.to(logits.dtype).view_as(logits)], create_graph=self.penalised)
        finally:
            ledger.first = False
        if not with_images:
            return stats, first, factor
        G, gradients = first[0], first[1:]
        assert G is not None  # the look found that logits depend on the images
        with torch.no_grad():
            per_sample = (-1, *[1] * (images.dim() - 1))
            s_image = s.view(per_sample)
            g = G.to(s.dtype) / s_image
            if self.generator_loss is not None:
                value, theirs = self._generator_cotangents(logits.detach(), n)
                stats = stats._replace(fake_image_grad=g[n:] * theirs.view(per_sample), generator_loss=value)
            if not self.penalised:
                return stats, gradients, factor
            w = torch.cat([s.new_full((n,), self.r1 / n), s.new_full((m,), self.r2 / m)])
            size = g.square().flatten(1).sum(1) * w / 2
            stats = stats._replace(r1=size[:n].sum(), r2=size[n:].sum())
            seed = (g * (w * factor / s).view(per_sample)).to(G.dtype)
            gradients = [None if d is None else d.detach() for d in gradients]
        if G.requires_grad:  # not so where the critic is linear in its images without a parameter
            keep = ledger.has_computed_weights
            second = _gradients([G], self.leaves, [seed], retain_graph=keep)
            gradients = _add(gradients, second)
        debts = ledger.sweep()
        if debts:
            weights, owed = zip(*debts, strict=True)
            gradients = _add(gradients, _gradients(weights, self.leaves, owed))
        return stats._replace(debts=Debts(ledger.deferred, ledger.swept, ledger.reentered)), gradients, factor

    def _cotangents(self, logits: Tensor, n: int) -> tuple[CriticStats, Tensor]:
        """Statistics, and d loss / d logits `[N + M]`, in float32 or float64."""
        logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        sides = {"real": logits[:n], "fake": logits[n:]}
        with torch.no_grad():
            _, stats = self.loss.discriminator(**sides, **self.weights, with_stats=True)
            real, fake = self.loss.logit_gradients(**sides, **self.weights)
        zero = torch.zeros_like(stats.loss)
        stats = stats._replace(r1=zero, r2=zero, plan="shared", debts=Debts())
        return stats, torch.cat([real.flatten(), fake.flatten()])

    def _generator_cotangents(self, logits: Tensor, n: int) -> tuple[Tensor, Tensor]:
        """The generator's loss, and d loss / d fake logits `[M]`."""
        logits = logits.to(torch.float64 if logits.dtype == torch.float64 else torch.float32)
        fake = logits[n:].clone().requires_grad_()
        with torch.enable_grad():
            value = self.generator_loss.generator(fake=fake, real=logits[:n])  # type: ignore[union-attr]
        return value.detach(), torch.autograd.grad(value, fake)[0].flatten()

    def _seeds(self, c: Tensor, dtype: torch.dtype, weight: float, divided_by: bool) -> tuple[Tensor, Tensor | float]:
        """Cotangents `[N + M]` that the narrowest dtype holds, not zero where they are divided by, and their factor.

        The second backward's are weight / s: in float16, where the loss's cotangents all but vanish beside the
        penalty's (a hinge that every logit has passed), those set the size.
        """
        if not divided_by and dtype != torch.float16:
            return c, 1.0
        largest = c.abs().max().clamp_min(_LEAST.get(dtype, 2.0**-30))
        factor: Tensor | float = 1.0
        if dtype == torch.float16:
            vanishing = largest < weight * _VANISHING
            largest = torch.where(vanishing, weight * _HALF_WEIGHT, largest)
            total = torch.where(vanishing, weight * len(c), c.abs().sum())
            exponent = torch.frexp(torch.maximum(total, largest)).exponent
            factor = torch.ldexp(torch.ones_like(largest), _HALF_COTANGENT - exponent)
        if divided_by:
            least = largest * _FLOOR.get(dtype, 2.0**-40)
            c = torch.where(c.abs() < least, torch.copysign(least, c), c)
        return (c * factor).to(dtype).to(c.dtype), factor

    # ---- the autograd plan

    def _autograd(self) -> tuple[CriticStats, list[Tensor | None], float]:
        with_images = self.penalised or self.generator_loss is not None
        real, fake = (
            side.requires_grad_(with_images) for side in (self.real.view_as(self.real), self.fake.view_as(self.fake))
        )
        with OnePowerIteration(self.critic) as weights:
            real_logits = self._score(real, self.kwargs[0])
            weights.first_call_done()
            fake_logits = self._score(fake, self.kwargs[1])
            total, stats = self._total(real, fake, real_logits, fake_logits)
            gradients = _gradients([total], self.leaves, [torch.ones_like(total)])
        return stats, gradients, 1.0

    def _traced(self, scale: float | Tensor) -> CriticStats:
        """The autograd plan as torch.compile can follow it."""
        with_images = self.penalised or self.generator_loss is not None
        real, fake = self.real.requires_grad_(with_images), self.fake.requires_grad_(with_images)
        real_logits, fake_logits = self._score(real, self.kwargs[0]), self._score(fake, self.kwargs[1])
        total, stats = self._total(real, fake, real_logits, fake_logits)
        (total * scale).backward(inputs=self.parameters)
        return stats

    def _total(self, real: Tensor, fake: Tensor, real_logits: Any, fake_logits: Any) -> tuple[Tensor, CriticStats]:
        """Loss and penalties as one number, and the statistics."""
        total, stats = self.loss.discriminator(real=real_logits, fake=fake_logits, **self.weights, with_stats=True)
        stats = stats._replace(plan="autograd", debts=Debts())
        if self.generator_loss is not None:
            constants = real_logits.detach() if isinstance(real_logits, Tensor) else [x.detach() for x in real_logits]
            value = self.generator_loss.generator(fake=fake_logits, real=constants)
            (image_grad,) = _gradients([value], [fake], [torch.ones_like(value)], retain_graph=True, allow_unused=False)
            stats = stats._replace(fake_image_grad=image_grad, generator_loss=value.detach())
        values = []
        for logits, images, weight in ((real_logits, real, self.r1), (fake_logits, fake, self.r2)):
            if not weight:
                values.append(torch.zeros_like(stats.loss))
                continue
            outputs = [logits] if isinstance(logits, Tensor) else list(logits)
            # float16 gradients of images underflow; a power of two is exact
            boost = 2.0**_HALF_COTANGENT if any(x.dtype == torch.float16 for x in outputs) else 1.0
            ones = [torch.full_like(x, boost) for x in outputs]
            (g,) = _gradients(outputs, [images], ones, create_graph=True, allow_unused=False)
            assert g is not None  # not allowed
            g = g.to(total.dtype) / boost
            penalty = g.square().flatten(1).sum(1).mean() * (weight / 2)
            total = total + penalty
            values.append(penalty.detach())
        return total, stats._replace(r1=values[0], r2=values[1])

    # ---- the end of both

    def _accumulate(self, gradients: Sequence[Tensor | None], scale: float | Tensor, factor: float | Tensor) -> None:
        """`.grad` += scale / factor * gradient, into the tensor that is there."""
        multiplier = None
        if isinstance(scale, Tensor) or isinstance(factor, Tensor) or scale != factor:
            multiplier = scale / factor
        with torch.no_grad():
            found = [(p, d.detach()) for p, d in zip(self.parameters, gradients, strict=True) if d is not None]
            if multiplier is not None:
                found = [(p, d * multiplier) for p, d in found]
            there = [(p.grad, d) for p, d in found if p.grad is not None]
            if there:
                torch._foreach_add_([g for g, _ in there], [d for _, d in there])
            taken: set[int] = set()
            for p, d in found:
                if p.grad is None and d.layout != torch.strided:
                    p.grad = d
                elif p.grad is None:
                    # a gradient of its own: autograd may hand one tensor to two parameters
                    memory = d.untyped_storage().data_ptr()
                    if memory in taken or d._is_view() or not _lies_as(d, p):
                        p.grad = torch.empty_like(p, dtype=d.dtype).copy_(d)
                    else:
                        p.grad = d
                    taken.add(memory)


def _lies_as(gradient: Tensor, parameter: Tensor) -> bool:
    """Whether both have their elements in the same order, as `backward` sees to it and torch's fused optimisers on a
    CPU take for granted (they pair elements by their place in memory, whatever the strides)."""
    sizes = zip(gradient.stride(), parameter.stride(), parameter.shape, strict=True)
    return all(of_gradient == of_parameter for of_gradient, of_parameter, size in sizes if size != 1)


def _lean_layers() -> contextlib.AbstractContextManager[Any]:
    return contextlib.nullcontext() if use_reference() or torch.compiler.is_compiling() else Lean()


def _gradients(
    outputs: Sequence[Tensor], inputs: Sequence[Tensor | GradientEdge], cotangents: Sequence[Tensor], **how: bool
) -> list[Tensor | None]:
    """autograd.grad, with the layers of the forward pass for what is recomputed."""
    if torch.compiler.is_compiling():
        return list(torch.autograd.grad(outputs, inputs, cotangents, **{"allow_unused": True, **how}))  # type: ignore[arg-type]
    with _lean_layers():
        return list(gradients_with_modes(outputs, inputs, cotangents, **how))


def _add(a: Sequence[Tensor | None], b: Sequence[Tensor | None]) -> list[Tensor | None]:
    """Sums where both are given, in fresh memory."""
    return [y if x is None else (x if y is None else x + y) for x, y in zip(a, b, strict=True)]
