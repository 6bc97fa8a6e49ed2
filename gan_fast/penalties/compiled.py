"""A whole critic step, its penalty and its backward included, in one compiled region.

    step = compile_step(step, leaves=("real", "fake"))     # def step(critic, real, fake): ...; loss.backward()
    loss = step(critic, real, fake)

A penalty needs the gradient of a gradient, which torch.compile has only where the forward, the penalty and the backward
lie in one region. Even there a Python `torch.autograd.Function` under the penalty gives silently wrong weight
gradients (torch 2.11, 2.14). So whatever is compiled is first compared with the step as it is written:

    |g_compiled - g|  <=  k eps (|g| + |all g|) + 8 |g(w (1 + eps)) - g(w)|       for every parameter w

at parameters moved a little, where no gate is exactly zero. The last term is what rounding does to this step: kinks and
cancellation make it far larger than eps. Tensors that the step writes in place, such as a running mean, are held to the
same bound (torch 2.11 loses some).
"""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils._pytree import tree_leaves, tree_map_only

from gan_fast.penalties._trial import Leaf, Trial


class CompiledStepError(RuntimeError):
    """torch.compile cannot compile this step, or what it compiles does not give the step's gradients."""


def compile_step(
    function: Callable[..., Any], *, leaves: Sequence[str] = (), verify: bool = True, **compile_options: Any
) -> CompiledStep:
    """`function`, a training step that calls `backward()` itself, compiled as one region, with its eager gradients.

        def step(critic, real, fake):
            real_logits, fake_logits = critic(real), critic(fake)
            loss = criterion.discriminator(real=real_logits, fake=fake_logits)
            loss = loss + penalties.r1_penalty(real_logits, real, 1.0)
            loss.backward()
            return loss

        step = penalties.compile_step(step, leaves=("real",))

    The result is called as `function` is, and returns what it returns, with tensors detached. Gradients accumulate into
    `.grad` as in eager mode, so clear them before the call (`optimizer.zero_grad()`) and step the optimizer after it:
    both belong outside. An accumulating call, which finds gradients there, is compiled apart from one that does not.
    Random numbers are those of eager mode, drawn from the same streams in the same order, on every backend (inductor
    runs with `fallback_random`). All penalties of this package may stand inside, without their `generator=`, which
    torch.compile does not trace. torch 2.11 does not trace a `requires_grad_()` inside either (2.14 does): what takes a
    gradient at points of its own, such as `gradient_penalty`, may be an error there.

    Verification runs at the first call and whenever torch.compile compiles anew: other shapes, dtypes, train or eval
    mode, parameters frozen or not, gradients there or not. It costs three eager steps and one compiled one, and for
    that time a copy of the parameters and gradients; then parameters, gradients, buffers and random state are put back
    and the call itself runs. Other Python state, such as a counter in a module, sees the trial runs too. Errors below
    the rounding of the lowest precision in the step pass: verify it in float32 once to have it sharp. A graph that was
    compiled for all batch sizes is verified at one of them.

    Args:
        function: the step. Its arguments hold at least one tensor or module.
        leaves: names of tensor arguments that are handed in as new leaves, `x.detach().requires_grad_()`, as images
            must be for `r1_penalty`. The caller's tensors stay untouched.
        verify: compare with eager mode as described. Without it a wrong gradient stays unseen.
        compile_options: `backend`, `mode`, `options`, `dynamic` of `torch.compile`; `fullgraph` is always True.

    Raises:
        ValueError: a name in `leaves` that is no parameter of `function`; `fullgraph=False`.
        CompiledStepError: at the call, with nothing changed: what torch.compile cannot trace, with its reason; a
            gradient or a buffer that differs from eager mode, and by how much, and from then on at every call;
            a module inside that is compiled by itself, or wrapped by DistributedDataParallel; a step that accumulates
            no gradient, or that steps an optimizer; a tensor argument with a graph behind it.
    """
    return CompiledStep(function, leaves=leaves, verify=verify, **compile_options)


class CompiledStep:
    """What `compile_step` returns."""

    def __init__(
        self, function: Callable[..., Any], *, leaves: Sequence[str], verify: bool, **compile_options: Any
    ) -> None:
        if isinstance(leaves, str):
            raise ValueError(f"compile_step got leaves={leaves!r}, expected a tuple of names: leaves=({leaves!r},)")
        if not compile_options.pop("fullgraph", True):
            raise ValueError(
                "compile_step got fullgraph=False: a step in pieces has no double backward, so leave it out"
            )
        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
            raise CompiledStepError(f"torch {torch.__version__} cannot compile a backward: compile_step needs 2.11")
        functools.update_wrapper(self, function)
        self._function = function
        self._signature = inspect.signature(function)
        unknown = [name for name in leaves if name not in self._signature.parameters]
        if unknown:
            raise ValueError(f"compile_step got leaves={tuple(leaves)}, but the step has no argument {unknown[0]!r}")
        self._leaves = tuple(leaves)
        self._verify = verify
        self._refusal: str | None = None
        self._checked = False

        def region(*args: Any, **kwargs: Any) -> Any:
            # A graph whose backward has run cannot leave the region.
            return tree_map_only(Tensor, Tensor.detach, function(*args, **kwargs))

        # torch.compile counts recompilations by code object, which two steps must not share.
        code = region.__code__.replace(co_name=f"compiled_{getattr(function, '__name__', 'step')}")
        self._eager = types.FunctionType(code, region.__globals__, code.co_name, None, region.__closure__)
        self._compiled = torch.compile(self._eager, fullgraph=True, **compile_options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._refusal is not None:
            raise CompiledStepError(self._refusal)
        if self._leaves:
            args, kwargs = self._with_leaves(args, kwargs)
        if torch.compiler.is_compiling() or torch._dynamo.eval_frame._stance.stance != "default":
            return self._compiled(*args, **kwargs)  # the caller's torch.compiler.set_stance decides
        if self._checked:
            try:
                with torch.compiler.set_stance("fail_on_recompile"):
                    return self._compiled(*args, **kwargs)
            except RuntimeError as error:
                if "fail_on_recompile" not in str(error):
                    raise
        seeds = _reachable(self._function, args, kwargs)
        _check_arguments(seeds, args, kwargs)
        if self._verify:
            self._compare_with_eager(seeds, args, kwargs)
        self._checked = True
        return self._compile_and_run(args, kwargs)

    def _with_leaves(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        bound = self._signature.bind(*args, **kwargs)
        for name in self._leaves:
            value = bound.arguments.get(name)
            if not isinstance(value, Tensor) or not value.is_floating_point():
                given = value.dtype if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(
                    f"compile_step was told leaves={self._leaves}, but {name} is {given}, not floating point"
                )
            bound.arguments[name] = value.detach().requires_grad_()
        return bound.args, bound.kwargs

    def _compile_and_run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        import torch._inductor.config

        with ExitStack() as stack:
            stack.enter_context(torch._dynamo.config.patch(trace_autograd_ops=True))
            stack.enter_context(torch._inductor.config.patch(fallback_random=True))
            try:
                return self._compiled(*args, **kwargs)
            except torch._dynamo.exc.TorchDynamoException as error:
                raise CompiledStepError(
                    f"torch.compile cannot compile the step {self._name}: {_reason(error)}. Change the step, or call "
                    "it without compile_step"
                ) from error

    @property
    def _name(self) -> str:
        return getattr(self._function, "__qualname__", repr(self._function))

    def _compare_with_eager(self, seeds: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        bound = self._signature.bind(*args, **kwargs)
        temporary = [bound.arguments[name] for name in self._leaves]
        trial = Trial(seeds, temporary)

        def effects(run: Callable[..., Any], *moves: tuple[float, int]) -> tuple[list[Tensor | None], list[Tensor]]:
            """What one run adds to the gradients and writes elsewhere, at moved parameters; leaves no trace."""
            try:
                for size, seed in moves:
                    _move(leaves, size, seed)
                run()
                return [leaf.added() for leaf in leaves], trial.written()
            finally:
                trial.undo()
                for image in temporary:
                    image.grad = None

        def eager() -> None:
            self._eager(*args, **kwargs)

        leaves: list[Leaf] = []
        hook = register_optimizer_step_pre_hook(_refuse_optimizer)
        try:
            with trial:
                eager()
            leaves = trial.leaves()
            if all(leaf.added() is None for leaf in leaves):
                raise CompiledStepError(
                    f"the step {self._name} accumulates no gradient: call loss.backward() inside it, because what is "
                    "compiled has no double backward outside"
                )
        finally:
            hook.remove()
            trial.undo()
            for image in temporary:
                image.grad = None

        off_zero, rounding = (0.1, 1), (trial.eps, 2)
        exact, exact_written = effects(eager, off_zero)
        rounded, rounded_written = effects(eager, off_zero, rounding)
        compiled, compiled_written = effects(lambda: self._compile_and_run(args, kwargs), off_zero)
        names = [trial.names.get(id(leaf.tensor), f"of shape {list(leaf.value.shape)}") for leaf in leaves]
        worst = _worst_difference(names, exact, rounded, compiled, trial.eps)
        if worst is not None:
            name, error, allowed = worst
            self._refusal = (
                f"torch.compile gives the step {self._name} a wrong gradient: that of parameter {name} is {error:.2g} "
                f"of its norm away from eager mode's, where rounding explains {allowed:.2g}. A Python "
                "torch.autograd.Function under a penalty does this: write it as operators of PyTorch or as a custom "
                "operator, or call the step without compile_step"
            )
            raise CompiledStepError(self._refusal)
        names = [f"of shape {list(t.shape)}" for t in exact_written]
        worst = _worst_difference(names, exact_written, rounded_written, compiled_written, trial.eps)
        if worst is not None:
            name, error, allowed = worst
            self._refusal = (
                f"torch.compile loses what the step {self._name} writes in place: a buffer {name} is {error:.2g} of "
                f"its norm away from eager mode's, where rounding explains {allowed:.2g}. torch 2.11 does this to a "
                f"running mean that a penalty moves, and this is torch {torch.__version__}: use a newer one, or call "
                "the step without compile_step"
            )
            raise CompiledStepError(self._refusal)


def _refuse_optimizer(*_: Any) -> None:
    raise CompiledStepError(
        "the step given to compile_step calls optimizer.step(): leave it to the caller, after the step"
    )


def _reachable(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """Modules, tensors and generators among the arguments and in what the function closes over."""
    roots: list[Any] = [args, kwargs, getattr(function, "__self__", None)]
    if inspect.isroutine(function):
        closed = inspect.getclosurevars(function)
        roots += [*closed.nonlocals.values(), *closed.globals.values()]
    return [x for x in tree_leaves(roots) if isinstance(x, (nn.Module, Tensor, torch.Generator))]


def _check_arguments(seeds: list[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    given = tree_leaves((args, kwargs))
    if not any(isinstance(x, (nn.Module, Tensor)) for x in given):
        raise CompiledStepError("the step got no tensor and no module: torch.compile would skip it, so pass the critic")
    for x in given:
        if isinstance(x, Tensor) and x.requires_grad and not x.is_leaf:
            raise CompiledStepError(
                f"the step got a tensor {list(x.shape)} with a graph behind it, which a compiled backward does not "
                "enter: detach it, or name its argument in leaves="
            )
    for root in seeds:
        if isinstance(root, nn.Module):
            for name, module in root.named_modules():
                _check_module(f"{type(root).__name__}.{name}" if name else type(root).__name__, module)


def _check_module(name: str, module: nn.Module) -> None:
    if isinstance(module, torch._dynamo.OptimizedModule) or module._compiled_call_impl is not None:
        raise CompiledStepError(
            f"{name} is compiled by itself, which has no double backward: give compile_step the uncompiled module "
            "(compiled._orig_mod, or one on which .compile() was not called); the step is compiled as a whole"
        )
    if isinstance(module, nn.parallel.DistributedDataParallel):
        raise CompiledStepError(
            f"{name} is wrapped by DistributedDataParallel, whose hooks do not survive a double backward: give the "
            "step its .module, and average the gradients after the step"
        )


@torch.no_grad()
def _move(leaves: list[Leaf], size: float, seed: int) -> None:
    """w <- w + size rms(w) noise, where a w that is zero counts as of size one."""
    for i, leaf in enumerate(leaves):
        w = leaf.tensor
        if w is not None and w.is_floating_point():
            generator = torch.Generator(w.device).manual_seed(1000 * seed + i)
            noise = torch.randn(w.shape, generator=generator, device=w.device, dtype=w.dtype)
            rms = w.float().square().mean().sqrt()
            w.add_((noise * size * torch.where(rms > 0, rms, 1.0)).to(w.dtype))


@torch.no_grad()
def _worst_difference(
    names: Sequence[str],
    exact: Sequence[Tensor | None],
    rounded: Sequence[Tensor | None],
    compiled: Sequence[Tensor | None],
    eps: float,
) -> tuple[str, float, float] | None:
    """The gradient furthest beyond its bound, as (name, error, allowed) relative to its norm; None where all hold."""

    def norm(g: Tensor | None) -> float:
        return 0.0 if g is None else float(torch.linalg.vector_norm(g.double().nan_to_num(0.0, 0.0, 0.0)))

    def distance(a: Tensor | None, b: Tensor | None) -> float:
        if a is None or b is None:
            return norm(a if b is None else b)
        difference = torch.where(a.isfinite() | b.isfinite(), a.double() - b.double(), 0.0)
        return float(torch.linalg.vector_norm(difference))

    total = sum(norm(g) ** 2 for g in exact) ** 0.5
    k = 4 if eps > 1e-4 else 64  # half precision is rounded once, from float32
    worst, excess = None, 1.0
    for name, e, r, c in zip(names, exact, rounded, compiled, strict=True):
        error = distance(c, e)
        noise = distance(r, e)
        allowed = k * eps * (norm(e) + total) + 8 * (noise if noise < float("inf") else 0.0)
        ratio = error / allowed if allowed else (float("inf") if error else 0.0)
        if not ratio <= excess:
            scale = norm(e) or total or 1.0
            worst, excess = (name, error / scale, allowed / scale), ratio
    return worst


def _reason(error: BaseException) -> str:
    """The first line of torch.compile's report and its explanation, as one sentence."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].endswith(":"):  # "backend='inductor' raised:" and then what
        lines[:2] = [" ".join(lines[:2])]
    explanation = next(
        (line.removeprefix("Explanation:").strip() for line in lines if line.startswith("Explanation:")), ""
    )
    return ": ".join(part.rstrip(".") for part in (lines[0] if lines else type(error).__name__, explanation) if part)
