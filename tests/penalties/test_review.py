"""Critics that are easily got wrong: each of these once was, or was refused where it need not be."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gan_fast import losses, penalties
from gan_fast.penalties import _mixing


def gradients(
    critic: nn.Module, plan: str, loss: losses.AdversarialLoss | None = None, **options: object
) -> list[Tensor]:
    """Of every parameter, after one step with both penalties."""
    noise = torch.Generator().manual_seed(0)
    dtype = next(critic.parameters()).dtype
    real, fake = (
        torch.randn(4, 2, 8, 8, generator=noise, device="cpu", dtype=torch.float64).to(dtype) for _ in range(2)
    )
    for p in critic.parameters():
        p.grad = None
    stats = penalties.critic_backward(
        critic, real=real, fake=fake, loss=loss or losses.NonSaturatingLoss(), r1=1.0, r2=0.5, plan=plan, **options
    )
    assert plan == "auto" or stats.plan == plan
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in critic.parameters()]
    return [g.to_dense() if g.is_sparse else g.clone() for g in found]


def assert_same(critic: nn.Module, plan: str = "shared", **options: object) -> None:
    for a, b in zip(gradients(critic, plan, **options), gradients(critic, "autograd", **options), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


class Inside(nn.Module):
    """Two linear layers and what a test puts between them."""

    def __init__(self, between: nn.Module | None = None) -> None:
        super().__init__()
        self.first, self.between, self.last = nn.Linear(128, 5), between or nn.Identity(), nn.Linear(5, 1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(F.silu(self.first(x.flatten(1)))))


class DynamicConvolution(nn.Module):
    """A convolution whose weight is computed, for each sample, from that sample."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, 3, 3) * 0.3)
        self.style, self.last = nn.Linear(2, 2), nn.Linear(3, 1)
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        style = 1 + self.style(x.mean((2, 3)))
        weight = (self.weight * style[:, None, :, None, None]).flatten(0, 1)
        y = F.conv2d(x.reshape(1, -1, 8, 8), weight, padding=1, groups=len(x)).view(len(x), 3, 8, 8)
        return self.last(F.leaky_relu(y, 0.2).mean((2, 3)))


def test_weight_computed_from_the_images() -> None:
    """Its gradient is on the way to the images' gradient, so it must not wait for the second backward."""
    torch.manual_seed(0)
    assert_same(DynamicConvolution())


class OwnBackward(torch.autograd.Function):
    """A layer kept as a graph of its own, differentiated inside the backward of the node."""

    @staticmethod
    def forward(ctx, x, weight):
        with torch.enable_grad():
            ctx.leaves = x.detach().requires_grad_(), weight.detach().requires_grad_()
            ctx.y = F.linear(*ctx.leaves)
        return ctx.y.detach()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, dy):
        dx, dw = torch.autograd.grad(ctx.y, ctx.leaves, dy, retain_graph=True)
        return dx, -dw


def test_backward_inside_a_backward_owes_nothing() -> None:
    """Here the node reverses its weight's gradient, which is its own business."""

    class Critic(Inside):
        def forward(self, x: Tensor) -> Tensor:
            x = x.flatten(1)
            return super().forward(x) + 0.1 * OwnBackward.apply(x.detach().requires_grad_(), self.first.weight[:1])

    torch.manual_seed(0)
    assert_same(Critic())


def test_what_torch_takes() -> None:
    """Nested tensors, biases of several dimensions, and torch's own error for a wrong size."""
    x, w = torch.randn(2, 4), torch.randn(3, 4)
    nested = torch.nested.nested_tensor([torch.randn(2, 4), torch.randn(3, 4)])
    with penalties.fast_double_backward():
        assert F.relu(F.linear(nested, w)).unbind()[0].shape == (2, 3)
        bias = torch.zeros(2, 3, requires_grad=True)
        assert torch.autograd.grad(F.linear(x, w, bias).sum(), bias)[0].shape == (2, 3)
        with pytest.raises(RuntimeError, match="output_size"):
            F.adaptive_avg_pool2d(torch.randn(1, 1, 4, 4), (1, 2, 3))


class SparseEmbedding(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.labels, self.last = nn.Embedding(10, 128, sparse=True), nn.Linear(128, 1)
        self.double()

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        x = x.flatten(1)
        return self.last(x) + (x * self.labels(labels)).sum(1, keepdim=True)


def test_sparse_gradient() -> None:
    assert_same(SparseEmbedding(), critic_kwargs={"labels": torch.tensor([1, 2, 3, 1])})


def test_hook_on_a_parameter_sees_the_whole_gradient() -> None:
    critic = Inside()
    seen: list[Tensor] = []
    critic.first.weight.register_hook(lambda g: seen.append(g) or g.clamp(-1e-3, 1e-3))
    with pytest.warns(UserWarning, match="hook"):
        assert_same(critic, "auto")
    torch.testing.assert_close(*seen)
    with pytest.raises(ValueError, match="hook"):
        gradients(critic, "shared")


class Checkpointed(Inside):
    def forward(self, x: Tensor) -> Tensor:
        return self.last(checkpoint(lambda x: F.silu(self.first(x)), x.flatten(1), use_reentrant=False))


@pytest.mark.parametrize("plan", ["shared", "autograd"])
def test_checkpointed_linear_layer(plan: str) -> None:
    """The recomputation in the backward runs the same functions as the forward did, in both plans."""
    torch.manual_seed(0)
    plain = Inside()
    critic = Checkpointed()
    critic.load_state_dict(plain.state_dict())
    for a, b in zip(gradients(critic, plan), gradients(plain, "autograd"), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


class Clamped(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, dy):
        return dy.clamp(-1e-2, 1e-2)


class ClampedBackward(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return Clamped.apply(x)


def test_backward_that_is_not_linear() -> None:
    """Cotangents of the shared plan have another size than those of the penalty as written."""
    hooked = Inside()
    hooked.last.register_full_backward_hook(lambda module, given, _: (given[0].clamp(-1e-2, 1e-2),))
    for critic in (Inside(ClampedBackward()), hooked):
        with pytest.warns(UserWarning, match="by their size"):
            assert_same(critic, "auto")


def test_augmentations_made_anew_are_told_apart() -> None:
    """Their addresses are used again at once; and one that is the same is not looked at again."""

    class Augment:
        def __init__(self, mix: float) -> None:
            self.mix = mix

        def __call__(self, x: Tensor) -> Tensor:
            return x - self.mix * x.mean(0, keepdim=True)

        def method(self, x: Tensor) -> Tensor:
            return self(x)

    critic = Inside()
    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)

    def plan(augment) -> str:
        loss = losses.NonSaturatingLoss()
        return penalties.critic_backward(critic, real=x, fake=x + 0.1, loss=loss, r1=1.0, augment=augment).plan

    expected = ["shared", "autograd"] * 5
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        assert [plan(Augment(i % 2)) for i in range(10)] == expected
        assert [plan(Augment(i % 2).method) for i in range(10)] == expected
        held = [Augment(0), Augment(1)]
        before = len(_mixing._known[critic].found)
        assert [plan(held[i % 2].method) for i in range(10)] == expected
        assert [plan(lambda x, a=held[i % 2], p=0.1 + i: a(x) * p) for i in range(10)] == expected
    assert len(_mixing._known[critic].found) == before + 4


def test_look_under_another_default_device_and_with_containers() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen, self.counts = [], {}

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            self.counts[len(x)] = self.counts.get(len(x), 0) + 1
            return x

    critic = Inside(Remembers())
    with torch.device("meta"):
        gradients(critic, "shared")
    assert critic.between.seen == [8] and critic.between.counts == {8: 1}


@pytest.mark.parametrize("convert", [True, False], ids=["float logits", "half logits"])
def test_saturated_hinge_under_half_autocast(convert: bool) -> None:
    """Every cotangent of the loss is zero; float16 inside the critic must neither lose nor overflow the penalty's."""

    class Passed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Conv2d(2, 8, 3, 2, 1), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(128, 1))

        def forward(self, x: Tensor) -> Tensor:
            y = self.body(x)
            sure = 100 * x[:, 0, 0, :1].sign()
            return y.float() + sure if convert else y + sure.to(y)

    torch.manual_seed(0)
    critic = Passed()
    real = torch.randn(8, 2, 8, 8).abs()
    found = []
    for dtype, half, plan in ((torch.float64, False, "autograd"), (torch.float32, True, "shared")):
        critic.zero_grad()
        critic.to(dtype)
        images, loss = real.to(dtype), losses.HingeLoss()
        with torch.autocast("cpu", torch.float16, enabled=half):
            penalties.critic_backward(critic, real=images, fake=-images, loss=loss, r1=10.0, r2=5.0, plan=plan)
        found.append(torch.cat([p.grad.double().flatten() for p in critic.parameters()]))
    assert (found[1] - found[0]).norm() < 0.02 * found[0].norm()


def test_batch_size_in_the_logits_is_seen_in_half_precision() -> None:
    class Mean(Inside):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) / len(x)

    for dtype in (torch.bfloat16, torch.float16):
        with pytest.raises(ValueError, match="two calls"):
            gradients(Mean().to(dtype), "shared")


def test_generators_outside_the_critic_are_kept() -> None:
    critic, stream = Inside(), torch.Generator()
    before = stream.get_state()

    def augment(x: Tensor) -> Tensor:
        return x * torch.rand(len(x), 1, 1, 1, generator=stream, dtype=x.dtype)

    x = torch.randn(4, 2, 8, 8, dtype=torch.float64)
    assert _mixing.why_not_shared(critic, x, x + 1, ({}, {}), augment, None) == ""
    assert torch.equal(stream.get_state(), before)


def test_rows_inside_a_list_take_the_autograd_plan() -> None:
    class Conditional(Inside):
        def forward(self, x: Tensor, conditions: list[Tensor]) -> Tensor:
            return super().forward(x) * conditions[0]

    options = {"critic_kwargs": {"conditions": [torch.randn(4, 1, dtype=torch.float64)]}}
    with pytest.warns(UserWarning, match="holds tensors with one row"):
        assert_same(Conditional(), "auto", **options)
