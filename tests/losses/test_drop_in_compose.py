"""The drop-ins, GANLoss and feature matching inside PyTorch: torch.compile, autocast, torch.func, fake tensors."""

from __future__ import annotations

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode

from gan_fast import losses, reference_mode
from support.drop_in import same_outcome
from support.strategies import draw_values
from support.tolerances import assert_bitwise_equal, assert_close

# name -> (ours, what it stands for in plain PyTorch), functions of logits x and targets t in (0, 1)
PAIRS = {
    "bce_with_logits": (losses.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits),
    "bce": (
        lambda x, t: losses.binary_cross_entropy(x.sigmoid(), t),
        lambda x, t: F.binary_cross_entropy(x.sigmoid(), t),
    ),
    "softplus": (lambda x, t: losses.softplus(x, 2.0), lambda x, t: F.softplus(x, 2.0)),
    "logsigmoid": (lambda x, t: losses.logsigmoid(x), lambda x, t: F.logsigmoid(x)),
    "feature_matching": (losses.feature_matching, lambda x, t: (x.detach() - t).abs().mean()),
    "cycle_consistency": (losses.cycle_consistency, lambda x, t: 10 * (x - t).abs().mean()),
    "gan_loss": (lambda x, t: losses.GANLoss("hinge")(x, True), lambda x, t: F.relu(1 - x).mean()),
}
everyone = pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS.keys())


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def pair(dtype=torch.float32, shape=(6, 5), grad=True):
    x = draw_values(shape, "normal", 1, dtype).requires_grad_(grad)
    return x, draw_values(shape, "normal", 2, dtype).sigmoid().requires_grad_(grad)


def value_and_gradients(function, x, t):
    value = function(x, t).sum()
    found = torch.autograd.grad(value, [x, t], allow_unused=True)
    return [value.detach(), *(torch.zeros_like(x) if g is None else g for g in found)]


@everyone
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_to_one_graph_for_any_size(ours, theirs, dtype):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(ours, fullgraph=True, backend=counter, dynamic=True)
    compiled_at = []
    for n in (6, 9, 33):
        x, t = pair(dtype, (n, n + 2))
        for a, b in zip(value_and_gradients(compiled, x, t), value_and_gradients(ours, x, t), strict=True):
            assert a.dtype == b.dtype
            assert_close(a, b.double(), kind="reduced", magnitude=b.abs().max().item())
        compiled_at.append(counter.frame_count)
    assert len(set(compiled_at)) == 1, f"compilations after each of three sizes: {compiled_at}"


@everyone
def test_gradient_penalty_in_one_compiled_region(ours, theirs):
    if not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        pytest.skip(f"torch {torch.__version__} cannot trace autograd.grad inside a compiled region")
    x, w = pair(torch.float32, (5, 5))

    def penalised(x, w):
        y = (x @ w).tanh()
        value = ours(w.detach(), y.sigmoid()).sum() + ours(y, w.detach().sigmoid()).sum()
        (g,) = torch.autograd.grad(value, x, create_graph=True)
        return value + g.square().sum()

    wide = [a.detach().double().requires_grad_() for a in (x, w)]
    with reference_mode():
        exact = torch.autograd.grad(penalised(*wide), wide)
    eager = torch.autograd.grad(penalised(x, w), [x, w])
    with torch._dynamo.config.patch(trace_autograd_ops=True):
        value = torch.compile(penalised, fullgraph=True, backend="aot_eager")(x, w)
        compiled = torch.autograd.grad(value, [x, w])
    for a, b, c in zip(eager, compiled, exact, strict=True):
        assert_close(a, c, kind="reduced", magnitude=c.abs().max().item(), factor=4.0)
        assert_close(b, c, kind="reduced", magnitude=c.abs().max().item(), factor=4.0)


@everyone
def test_torch_func(ours, theirs):
    """grad, jvp and vmap give what they give on plain PyTorch, never a silent zero."""
    x, t = pair(torch.float64, (4, 3), grad=False)
    tangent = torch.randn(4, 3, dtype=torch.float64)
    for a, b in zip(
        torch.func.jvp(lambda y: ours(y, t), (x,), (tangent,)),
        torch.func.jvp(lambda y: theirs(y, t), (x,), (tangent,)),
        strict=True,
    ):
        assert_close(a, b, kind="reduced", magnitude=10.0)
    gradient = torch.func.grad(lambda y: ours(t, y).sum())(x.sigmoid())
    expected = torch.func.grad(lambda y: theirs(t, y).sum())(x.sigmoid())
    assert_close(gradient, expected, kind="reduced", magnitude=10.0)
    got, loop = torch.func.vmap(ours)(x, t), torch.stack([ours(a, b) for a, b in zip(x, t, strict=True)])
    assert_close(got, loop, kind="reduced", magnitude=10.0)


@everyone
@pytest.mark.parametrize("where", ["meta", "fake"])
def test_shapes_without_data(ours, theirs, where):
    with FakeTensorMode() if where == "fake" else torch.device("meta"):
        for dtype in (torch.float32, torch.bfloat16):
            x, t = (torch.empty(4, 3, dtype=dtype, requires_grad=True) for _ in range(2))
            got, expected = ours(x, t), theirs(x, t)
            assert got.shape == expected.shape
            assert got.device == expected.device
            for g in torch.autograd.grad(got.sum(), [x, t], allow_unused=True):
                assert g is None or (g.shape == (4, 3) and g.dtype == dtype)


@pytest.mark.parametrize("name", ["bce_with_logits", "softplus", "logsigmoid", "bce"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_autocast_as_torch(name, dtype, device):
    """Same dtype and value as torch's under autocast, or the same refusal."""
    x, t = (a.detach().to(device) for a in pair(dtype))
    ours, theirs = PAIRS[name]
    for cast in (torch.bfloat16, torch.float16):
        with torch.autocast(device.type, dtype=cast):
            same_outcome(ours, theirs, x, t)
            same_outcome(ours, theirs, x.float(), t)


@everyone
def test_no_grad_inference_and_reference_mode(ours, theirs):
    x, t = pair()
    expected = ours(x, t).detach()
    for guard in (torch.no_grad, torch.inference_mode):
        with guard():
            value = ours(x, t)
        assert not value.requires_grad
        assert_bitwise_equal(value.clone(), expected)
    with reference_mode():
        assert_close(ours(x, t), expected.double(), kind="reduced", magnitude=10.0)


@everyone
def test_backward_twice(ours, theirs):
    """A kept graph gives the same gradients again, whatever became of the first."""
    x, t = pair()
    y, s = x * 1.0, t * 1.0
    value = ours(s, y.sigmoid()).sum() + ours(y, s).sum()
    first = torch.autograd.grad(value, [y, s], retain_graph=True)
    kept = [g.clone() for g in first]
    for g in first:
        g.mul_(-3)
    for a, b in zip(torch.autograd.grad(value, [y, s]), kept, strict=True):
        assert_close(a, b.double(), kind="reduced", magnitude=1.0)
