"""Running a training step on trial: what it read and wrote is recorded, so that it can be undone and run again.

with Trial(seeds) as trial: step(...)       # records leaves, their gradients, and what is written in place
trial.undo()                                # parameters, gradients, buffers and random state as before the step
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# Batch norm's schema does not say that it moves these.
_WRITTEN_UNDECLARED = ("running_mean", "running_var")


class Leaf:
    """A tensor that gradients accumulate into, as it was before the step."""

    def __init__(self, tensor: Tensor) -> None:
        self._reference = weakref.ref(tensor)
        self.value = tensor.detach().clone()
        self.gradient = tensor.grad
        self._gradient_value = None if tensor.grad is None else tensor.grad.detach().clone()

    @property
    def tensor(self) -> Tensor | None:
        """None where the tensor was made inside the step and is gone with it."""
        return self._reference()

    def added(self) -> Tensor | None:
        """What the step added to the gradient, or None where it left the gradient alone."""
        tensor = self.tensor
        if tensor is None or tensor.grad is None:
            return None
        now = tensor.grad.detach()
        if self._gradient_value is None:
            return now.clone()
        return None if torch.equal(now, self._gradient_value) else now - self._gradient_value

    def undo(self) -> None:
        tensor = self.tensor
        if tensor is None:
            return
        if not torch.equal(tensor, self.value):
            tensor.copy_(self.value)
        if self.gradient is not None and self._gradient_value is not None:
            self.gradient.copy_(self._gradient_value)
        tensor.grad = self.gradient


class RandomState:
    """The global random state of every device in use, and that of explicit generators."""

    def __init__(self, generators: Iterable[torch.Generator] = ()) -> None:
        self._cpu = torch.get_rng_state()
        self._cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else None
        self._generators = [(g, g.get_state()) for g in generators]

    def undo(self) -> None:
        torch.set_rng_state(self._cpu)
        if self._cuda is not None:
            torch.cuda.set_rng_state_all(self._cuda)
        for generator, state in self._generators:
            generator.set_state(state)


class Trial(TorchDispatchMode):
    """Records, while active, the leaves that require grad, every tensor of before that is written, and module buffers.

    Every operator is seen from below autograd, so nothing depends on how the step reaches its networks: arguments,
    closures or attributes. What is not seen is Python state other than `_buffers` of the modules that are called.

    Args:
        seeds: what the step was given; leaves among these and their gradients are recorded before it starts.
        temporary: leaves made for this call alone, of no interest afterwards.
    """

    def __init__(self, seeds: Iterable[Any] = (), temporary: Iterable[Tensor] = ()) -> None:
        super().__init__()
        seeds = list(seeds)
        self._leaves: dict[int, Leaf] = {}
        self._temporary = {id(t) for t in temporary}
        self._written: list[tuple[Tensor, Tensor]] = []
        self._written_ids: set[int] = set()
        self._buffers: dict[nn.Module, dict[str, Tensor | None]] = {}
        self._old: set[StorageWeakRef] = set()
        self._born: set[StorageWeakRef] = set()
        self._random = RandomState(x for x in seeds if isinstance(x, torch.Generator))
        self.eps = 0.0
        self.names: dict[int, str] = {}
        for seed in seeds:
            if isinstance(seed, Tensor):
                self._meet(seed)
            elif isinstance(seed, nn.Module):
                for name, parameter in seed.named_parameters():
                    self.names.setdefault(id(parameter), name)
                    self._meet(parameter)

    def __enter__(self) -> Trial:
        def remember(module: nn.Module, _: Any) -> None:
            self._buffers.setdefault(module, dict(module._buffers))

        self._hook = nn.modules.module.register_module_forward_pre_hook(remember)
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        self._hook.remove()

    def _meet(self, tensor: Tensor) -> None:
        if tensor.requires_grad and tensor.is_leaf and id(tensor) not in self._temporary:
            leaf = self._leaves.get(id(tensor))
            if leaf is None or leaf.tensor is None:
                with torch.no_grad():
                    self._leaves[id(tensor)] = Leaf(tensor)

    def _write(self, tensor: Tensor) -> None:
        if id(tensor) not in self._written_ids and StorageWeakRef(tensor.untyped_storage()) not in self._born:
            self._written_ids.add(id(tensor))  # the list keeps the tensor, so the id stays its own
            self._written.append((tensor, tensor.detach().clone()))

    def written(self) -> list[Tensor]:
        """Copies, as they are now, of the tensors of before that the step writes in place."""
        return [tensor.detach().clone() for tensor, _ in self._written]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for x in tree_leaves((args, kwargs)):
            if isinstance(x, Tensor):
                self._meet(x)
                storage = StorageWeakRef(x.untyped_storage())
                if storage not in self._born:
                    self._old.add(storage)
        for i, argument in enumerate(func._schema.arguments):
            declared = argument.alias_info is not None and argument.alias_info.is_write
            if declared or argument.name in _WRITTEN_UNDECLARED:
                value = args[i] if i < len(args) else kwargs.get(argument.name)
                for x in tree_leaves(value):
                    if isinstance(x, Tensor):
                        self._write(x)
        result = func(*args, **kwargs)
        for x in tree_leaves(result):
            if isinstance(x, Tensor):
                storage = StorageWeakRef(x.untyped_storage())
                if storage not in self._old:
                    self._born.add(storage)
                if x.is_floating_point():
                    self.eps = max(self.eps, torch.finfo(x.dtype).eps)
        return result

    def leaves(self) -> list[Leaf]:
        """Those that outlive the step. Call when the step's results are gone."""
        if any(leaf.tensor is not None and id(leaf.tensor) not in self.names for leaf in self._leaves.values()):
            gc.collect()  # images made leaves inside the step may hang in a reference cycle
        return [leaf for leaf in self._leaves.values() if leaf.tensor is not None]

    @torch.no_grad()
    def undo(self) -> None:
        """Everything recorded is as before the step. May be called after each of several runs of the step."""
        for tensor, value in reversed(self._written):
            tensor.copy_(value)
        for module, buffers in self._buffers.items():
            module._buffers.clear()
            module._buffers.update(buffers)
        for leaf in self._leaves.values():
            leaf.undo()
        self._random.undo()
