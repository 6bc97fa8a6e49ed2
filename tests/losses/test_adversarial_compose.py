"""The adversarial losses inside PyTorch: torch.compile, gradient penalties, autocast, torch.func, fake tensors."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch._dynamo.testing
from torch._subclasses.fake_tensor import FakeTensorMode

from gan_fast import losses, reference_mode
from support.adversarial_formulas import NAMES, PAIRED
from support.strategies import draw_values
from support.tolerances import accumulation_dtype, assert_close


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def both(name, real, fake, **options):
    """Discriminator and generator loss added, so that one graph holds both."""
    loss = losses.get(name)(**options)
    return loss.discriminator(real=real, fake=fake) + 0.5 * loss.generator(fake=fake, real=real)


def logits(dtype=torch.float32, shape=(8, 1, 5, 5), device="cpu", grad=True):
    return [draw_values(shape, "normal", seed, dtype).to(device).requires_grad_(grad) for seed in (1, 2)]


def assert_same_graph(compiled, eager, leaves, magnitude=8.0):
    results = []
    for function in (compiled, eager):
        value = function(*leaves)
        results.append((value, torch.autograd.grad(value, leaves)))
    assert_close(results[0][0], results[1][0].double(), kind="reduced", magnitude=magnitude)
    for a, b in zip(results[0][1], results[1][1], strict=True):
        assert a.dtype == b.dtype
        assert_close(a, b.double(), kind="reduced", magnitude=b.abs().max().item())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_compiles_to_one_graph(name, dtype, device):
    compiled = torch.compile(lambda r, f: both(name, r, f), fullgraph=True, backend="aot_eager")
    assert_same_graph(compiled, lambda r, f: both(name, r, f), logits(dtype, device=device))


@pytest.mark.parametrize("name", ["non_saturating", "relativistic_average"])
def test_compiles_with_inductor(name, device):
    def function(r, f):
        value, stats = losses.get(name)().discriminator(real=[r, r * 0.5], fake=[f, f + 1], with_stats=True)
        return value + stats.real_sign_mean

    assert_same_graph(torch.compile(function, fullgraph=True), function, logits(device=device))


@pytest.mark.parametrize("name", NAMES)
def test_dynamic_shapes_compile_once(name):
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(lambda r, f: both(name, r, f), fullgraph=True, backend=counter, dynamic=True)
    compiled_at = []
    for n in (8, 13, 64, 7):
        assert_same_graph(compiled, lambda r, f: both(name, r, f), logits(shape=(n, 1, n + 1, 3)))
        compiled_at.append(counter.frame_count)
    assert len(set(compiled_at)) == 1, f"compilations after each of four sizes: {compiled_at}"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_other_reductions_and_weights_compile(name, reduction):
    w = torch.tensor([0.5, 2.0, 0.0, 1.0, 1.0, 1.0, 1.0, 3.0])

    def function(r, f):
        out = losses.get(name)(reduction=reduction).discriminator(real=r, fake=f, real_weight=w, fake_weight=w)
        return out.square().sum() if isinstance(out, torch.Tensor) else (out.real * 2 + out.fake).sum()

    assert_same_graph(torch.compile(function, fullgraph=True, backend="aot_eager"), function, logits(), magnitude=1e3)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "one compiled region"])
def test_gradient_penalty_through_the_loss(name, compiled):
    """The gradient of |d loss / d images|^2 reaches the critic's weights as with the reference in float64."""
    if compiled and not hasattr(torch._dynamo.config, "trace_autograd_ops"):
        pytest.skip(f"torch {torch.__version__} cannot trace autograd.grad inside a compiled region")
    images = draw_values((6, 5), "normal", 1, torch.float32).requires_grad_()
    weight = draw_values((5, 4), "normal", 2, torch.float32).requires_grad_()
    loss = losses.get(name)()

    def penalised(x, w):
        real, fake = (x @ w).tanh().sum(1), (x.flip(0) @ w).square().mean(1)
        value = loss.discriminator(real=real, fake=fake)
        (gradient,) = torch.autograd.grad(value, x, create_graph=True)
        return value + gradient.square().sum()

    wide = [x.detach().double().requires_grad_() for x in (images, weight)]
    with reference_mode():
        exact = torch.autograd.grad(penalised(*wide), wide)
    if compiled:
        with torch._dynamo.config.patch(trace_autograd_ops=True):
            value = torch.compile(penalised, fullgraph=True, backend="aot_eager")(images, weight)
            got = torch.autograd.grad(value, [images, weight])
    else:
        got = torch.autograd.grad(penalised(images, weight), [images, weight])
    for a, b in zip(got, exact, strict=True):
        assert_close(a, b, kind="reduced", magnitude=b.abs().max().item(), factor=4.0)  # a chain of products around it


@pytest.mark.parametrize("name", NAMES)
def test_autocast(name, device):
    """Low-precision logits give a float32 loss and gradients in the logits' dtype; autocast itself changes nothing."""
    real, fake = logits(torch.bfloat16, device=device)
    outside = both(name, real, fake)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        inside = both(name, real, fake)
        wide = both(name, real.float(), fake.float())
    assert inside.dtype == outside.dtype == wide.dtype == torch.float32
    assert_close(inside, outside.double(), kind="reduced", magnitude=4.0)
    assert_close(wide, outside.double(), kind="reduced", magnitude=4.0)
    linear = torch.nn.Linear(5, 1).to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        x = torch.randn(8, 5, device=device)
        value = both(name, linear(x), linear(x + 1))
    value.backward()
    assert linear.weight.grad.dtype == torch.float32 and bool(linear.weight.grad.isfinite().all())


@pytest.mark.parametrize("name", NAMES)
def test_torch_func_grad_and_hessian(name):
    real, fake = logits(torch.float64, (5,), grad=False)
    got = torch.func.grad(lambda r, f: both(name, r, f), argnums=(0, 1))(real, fake)
    leaves = [x.clone().requires_grad_() for x in (real, fake)]
    for a, b in zip(got, torch.autograd.grad(both(name, *leaves), leaves), strict=True):
        assert_close(a, b, kind="reduced", magnitude=1.0)
    hessian = torch.func.hessian(lambda r: both(name, r, fake))(real)
    expected = torch.autograd.functional.hessian(lambda r: both(name, r, fake), real)
    assert_close(hessian, expected, kind="reduced", magnitude=1.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("role", ["discriminator", "generator"])
def test_vmap_is_a_loop(name, role):
    """Per-sample losses: vmap over a leading axis gives what a loop gives, statistics included."""
    real, fake = logits(torch.float64, (3, 5), grad=False)
    loss = losses.get(name)()

    def one(r, f):
        if role == "generator":
            return loss.generator(fake=f, real=r)
        value, stats = loss.discriminator(real=r, fake=f, with_stats=True)
        return value + stats.fake_mean

    got = torch.func.vmap(one)(real, fake)
    assert_close(got, torch.stack([one(r, f) for r, f in zip(real, fake, strict=True)]), kind="reduced", magnitude=4.0)


@pytest.mark.parametrize("name", NAMES)
def test_forward_mode(name):
    """jvp is <gradient, tangent>, never a silent zero."""
    real, fake = logits(torch.float64, (5,), grad=False)
    tangents = (torch.randn(5, dtype=torch.float64), torch.randn(5, dtype=torch.float64))
    _, got = torch.func.jvp(lambda r, f: both(name, r, f), (real, fake), tangents)
    leaves = [x.clone().requires_grad_() for x in (real, fake)]
    gradients = torch.autograd.grad(both(name, *leaves), leaves)
    expected = sum((g * t).sum() for g, t in zip(gradients, tangents, strict=True))
    assert_close(got, expected, kind="reduced", magnitude=4.0)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(real, tangents[0])
        out = torch.autograd.forward_ad.unpack_dual(both(name, dual, fake)).tangent
    assert out is not None
    assert_close(out, (gradients[0] * tangents[0]).sum(), kind="reduced", magnitude=4.0)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("where", ["meta", "fake"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16], ids=str)
def test_shapes_without_data(name, where, dtype):
    mode = FakeTensorMode() if where == "fake" else torch.device("meta")
    with mode:
        real, fake = (torch.empty(4, 1, 3, 3, dtype=dtype, requires_grad=True) for _ in range(2))
        loss = losses.get(name)()
        value, stats = loss.discriminator(real=real, fake=fake, with_stats=True)
        assert value.shape == () and value.dtype == accumulation_dtype(dtype) and value.device == real.device
        assert all(x.shape == () and x.device == real.device for x in stats[:5])
        for g in (*torch.autograd.grad(value, [real, fake]), *loss.logit_gradients(real=real, fake=fake)):
            assert g.shape == (4, 1, 3, 3) and g.dtype == dtype
        terms = losses.get(name)(reduction="none").discriminator(real=real, fake=fake)
        for x in [terms] if name in PAIRED else terms:
            assert x.shape == (4, 1, 3, 3) and x.dtype == dtype


@pytest.mark.parametrize("name", NAMES)
def test_no_grad_and_inference_mode(name):
    real, fake = logits()
    expected = both(name, real, fake).detach()
    for guard in (torch.no_grad, torch.inference_mode):
        with guard():
            value = both(name, real, fake)
        assert not value.requires_grad and bool(value == expected)


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_values_that_can_be_copied(name):
    loss = losses.get(name)(reduction="sum")
    real, fake = logits(grad=False)
    for twin in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss))):
        assert repr(twin) == repr(loss)
        assert bool(twin.discriminator(real=real, fake=fake) == loss.discriminator(real=real, fake=fake))


@pytest.mark.parametrize("name", NAMES)
def test_backward_twice_and_inputs_changed_in_place(name):
    """A kept graph gives the same gradients again, whatever became of the first; changed logits are not misread."""
    real, fake = (x * 1.0 for x in logits())
    value = losses.get(name)().discriminator(real=real, fake=fake)
    first = torch.autograd.grad(value, [real, fake], retain_graph=True)
    kept = [g.clone() for g in first]
    for g in first:
        g.mul_(-3)  # a gradient belongs to whoever asked for it: scaling it must not reach the graph
    first = kept
    second = torch.autograd.grad(value, [real, fake], retain_graph=True)
    assert all(bool((a == b).all()) for a, b in zip(first, second, strict=True))
    with torch.no_grad():
        real.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(value, [real, fake])


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_captures_into_a_cuda_graph(name):
    """Forward, statistics and backward replay on new logits: no host sync, no allocation outside the graph's pool."""
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device to capture on")
    real, fake = logits(device="cuda")
    loss = losses.get(name)()

    def step():
        value, stats = loss.discriminator(real=real, fake=fake, with_stats=True)
        return [value, *stats, *torch.autograd.grad(value, [real, fake])]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        real.mul_(-1.5).add_(0.1)
        fake.add_(2)
    graph.replay()
    for a, b in zip(captured, step(), strict=True):
        assert torch.equal(torch.as_tensor(a), torch.as_tensor(b))
