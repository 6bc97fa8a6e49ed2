"""`ops.modulated_conv2d` and its StyleGAN3 form: the shared convolution against per-sample weights, to second order."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import pytest
import torch
from torch import Tensor

from gan_fast import ops, penalties, reference_mode
from support.checks import check_derivatives
from support.kernels import CAPABILITIES, cpu_capability, needs_kernels
from support.reference_runner import derivatives, poisoned_memory

pytestmark = needs_kernels


@pytest.fixture(params=["never", "always"])
def winograd(request: pytest.FixtureRequest) -> Iterator[None]:
    """3x3 kernels at stride 1 composed of other ops, and as one."""
    from gan_fast import _C

    before = _C.winograd_mode()
    _C.set_winograd(request.param)
    yield
    _C.set_winograd(before)


both_ways = pytest.mark.usefixtures("winograd")
F4 = ops.setup_filter([1, 3, 3, 1])
FORMATS = (torch.contiguous_format, torch.channels_last)


def x(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def formula(x, weight, styles, noise=None, up=1, down=1, padding=0, f=None, demodulate=True, flip_weight=True):
    """Sample by sample, from the paper."""
    out = []
    for image, s in zip(x, styles, strict=True):
        w = weight * s[:, None, None]
        if demodulate:
            w = w / (w.square().sum([1, 2, 3], keepdim=True) + 1e-8).sqrt()
        out.append(ops.conv2d_resample(image[None], w, f, up, down, padding, flip_weight=flip_weight))
    y = torch.cat(out)
    return y if noise is None else y + noise


def same(got: Sequence[Tensor], want: Sequence[Tensor], rtol: float = 1e-10) -> None:
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        scale = float(b.abs().max()) if b.numel() else 0.0
        torch.testing.assert_close(a.double(), b, rtol=0, atol=rtol * scale + 1e-13, msg=lambda m, i=i: f"{i}: {m}")


def everything(function, inputs: Sequence[Tensor]) -> list[Tensor]:
    d = derivatives(function, inputs)
    return [*d.values, *d.gradients, *d.second]


@pytest.mark.parametrize("memory_format", FORMATS, ids=("contiguous", "channels_last"))
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 2)], ids=str)
def test_both_are_the_paper_to_second_order(factors, memory_format):
    up, down = factors
    for kernel, demodulate, flip in itertools.product((1, 3, 5), (True, False), (True, False)):
        images = x(2, 3, 5, 6).contiguous(memory_format=memory_format)
        inputs = [images, x(4, 3, kernel, kernel, seed=1), x(2, 3, seed=2)]
        side = [n * up // down for n in images.shape[2:]]
        inputs.append(x(2, 1, *side, seed=3))
        rest = (up, down, kernel // 2, F4, demodulate, flip)
        want = everything(lambda *a: formula(*a, *rest), inputs)  # noqa: B023
        got = everything(lambda *a: ops.modulated_conv2d(*a, *rest), inputs)  # noqa: B023
        assert got[0].is_contiguous(memory_format=memory_format)
        same(got, want)
        with reference_mode():
            same(everything(lambda *a: ops.modulated_conv2d(*a, *rest), inputs), want)  # noqa: B023


@both_ways
@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
def test_the_whole_layer_is_its_parts(act):
    """Bias, noise of one plane, activation, gain, clamp and input gain in the same call, and one after another."""
    inputs = [x(3, 4, 6, 5), x(5, 4, 3, 3, seed=1), x(3, 4, seed=2), x(12, 10, seed=3), x(5, seed=4), x(4, seed=5)]
    rest = {"act": act, "alpha": 0.3, "gain": 1.7, "clamp": 1.5}

    def parts(images, weight, styles, noise, bias, gain):
        y = formula(images * gain[:, None, None], weight, styles, None, 2, 1, 1, F4)
        return ops.bias_act(y + noise, bias, **rest)

    def layer(images, weight, styles, noise, bias, gain):
        return ops.modulated_conv2d(
            images, weight, styles, noise, 2, 1, 1, F4, bias=bias, input_gain=gain, fused_modconv=False, **rest
        )

    want = everything(parts, inputs)
    same(everything(layer, inputs), want)
    with reference_mode():
        same(everything(layer, inputs), want)


@pytest.mark.parametrize("memory_format", FORMATS, ids=("contiguous", "channels_last"))
def test_derivatives(memory_format):
    images = x(2, 2, 3, 3).contiguous(memory_format=memory_format).requires_grad_()
    weight, styles, bias = (t.requires_grad_() for t in (x(2, 2, 3, 3, seed=1), x(2, 2, seed=2), x(2, seed=3)))
    for up, down, demodulate in ((1, 1, True), (1, 1, False), (2, 1, True), (1, 2, True)):
        noise = x(1, 1, 3 * up // down, 3 * up // down, seed=4).requires_grad_()

        def layer(a, w, s, n, b, up=up, down=down, demodulate=demodulate):
            return ops.modulated_conv2d(a, w, s, n, up, down, 1, F4, demodulate, bias=b, act="lrelu", clamp=3.0)

        check_derivatives(layer, (images, weight, styles, noise, bias))
    gain = x(2, 2, seed=5).requires_grad_()
    check_derivatives(lambda a, w, s, g: ops.modulated_conv2d_v3(a, w, s, True, 1, g), (images, weight, styles, gain))


@both_ways
def test_v3_is_the_paper():
    """Weights and styles of mean square 1, then as before; the input's gain acts on the image alone."""

    def v3(images, w, s, gain):
        w = w / w.square().mean([1, 2, 3], keepdim=True).sqrt()
        return formula(images * gain.expand(s.shape)[:, :, None, None], w, s / s.square().mean().sqrt(), padding=2)

    for gain in (x(1, seed=5)[0], x(3, seed=5), x(2, 3, seed=5)):
        inputs = [x(2, 3, 5, 4), x(4, 3, 3, 3, seed=1), x(2, 3, seed=2), gain]
        want = everything(v3, inputs)
        same(everything(lambda a, w, s, g: ops.modulated_conv2d_v3(a, w, s, True, 2, g), inputs), want)
        with reference_mode():
            same(everything(lambda a, w, s, g: ops.modulated_conv2d_v3(a, w, s, True, 2, g), inputs), want)
    got = ops.modulated_conv2d_v3(*inputs[:3], demodulate=False, padding=2)
    same([got], [formula(*inputs[:3], padding=2, demodulate=False)])


@both_ways
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_narrow_images_and_wide_parameters(dtype, capability):
    """Against the paper in float64: the image is rounded once before the convolution and once after each step."""
    allowed = {torch.float32: 2e-6, torch.bfloat16: 2e-2, torch.float16: 3e-3}[dtype]
    for up, memory_format in itertools.product((1, 2), FORMATS):
        images = x(2, 19, 7, 6).to(dtype).contiguous(memory_format=memory_format)
        wide = [x(21, 19, 3, 3, seed=1).float(), x(2, 19, seed=2).float()]
        with cpu_capability(capability), poisoned_memory():
            leaves = [t.requires_grad_() for t in (images, *wide)]
            y = ops.modulated_conv2d(*leaves, None, up, 1, 1, F4)
            cotangent = x(*y.shape, seed=7).to(dtype)
            found = [y, *torch.autograd.grad(y, leaves, cotangent)]
        exact = [t.detach().double().requires_grad_() for t in leaves]
        truth = formula(*exact, None, up, 1, 1, F4)
        want = [truth, *torch.autograd.grad(truth, exact, cotangent.double())]
        assert [t.dtype for t in found] == [dtype, dtype, torch.float32, torch.float32]
        same([t.detach() for t in found], [t.detach() for t in want], rtol=allowed)
        images.requires_grad_(False)


def test_float16_does_not_overflow():
    """Styles and weights in the thousands: what is multiplied stays near one, as demodulation takes the scale out."""
    images, weight, styles = x(2, 64, 4, 4).half(), 3000 * x(8, 64, 3, 3), 5000 * x(2, 64)
    y = ops.modulated_conv2d(images, weight.float(), styles.float(), padding=1)
    want = formula(images.double(), weight, styles, padding=1)
    same([y], [want], rtol=3e-3)
    v3 = ops.modulated_conv2d_v3(images, weight.float(), styles.float(), padding=1)
    same([v3], [want], rtol=3e-3)


@both_ways
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_zero_styles_give_zeros_and_finite_gradients(dtype):
    for function in (ops.modulated_conv2d, ops.modulated_conv2d_v3):
        for mode in (reference_mode, poisoned_memory):
            for rows in (1, 2):
                styles = x(2, 3).float()
                styles[:rows] = 0
                leaves = [t.requires_grad_() for t in (x(2, 3, 4, 4).to(dtype), x(4, 3, 3, 3).float(), styles)]
                with mode():
                    y = function(*leaves, padding=1)
                    gradients = torch.autograd.grad(y.float().square().sum(), leaves)
                assert not y[:rows].any()
                assert all(bool(g.isfinite().all()) for g in gradients)


@both_ways
def test_no_samples():
    for mode in (reference_mode, poisoned_memory):
        leaves = [t.requires_grad_() for t in (x(0, 3, 4, 4), x(4, 3, 3, 3), x(0, 3))]
        with mode():
            y = ops.modulated_conv2d(*leaves, None, 2, 1, 1, F4)
            assert y.shape == (0, 4, 8, 8)
            assert not any(bool(g.any()) for g in torch.autograd.grad(y.sum(), leaves))
            assert ops.modulated_conv2d_v3(*leaves, padding=1).shape == (0, 4, 4, 4)


def small_generator(kernels: Sequence[Tensor], w: Tensor) -> Tensor:
    h = kernels[0].expand(len(w), -1, -1, -1)
    for weight, affine, up in zip(kernels[1::2], kernels[2::2], (1, 2, 1), strict=True):
        act = "lrelu" if weight.shape[0] > 3 else "linear"
        h = ops.modulated_conv2d(
            h, weight, w @ affine + 1, None, up, 1, weight.shape[-1] // 2, F4, up == 2, up == 1, act=act
        )
    return h


@both_ways
def test_path_length_of_a_generator():
    """A gradient of a gradient through prologue, shared convolution, resampling and epilogue."""
    shapes = [(1, 4, 4, 4), (5, 4, 3, 3), (6, 4), (5, 5, 3, 3), (6, 5), (3, 5, 1, 1), (6, 5)]
    inputs = [x(*shape, seed=i) / 2 for i, shape in enumerate(shapes)] + [x(3, 6, seed=9)]

    def gradients() -> list[Tensor]:
        leaves = [t.clone().requires_grad_() for t in inputs]
        penalty = penalties.PathLengthPenalty().double()
        value = penalty(
            small_generator(leaves[:-1], leaves[-1]), leaves[-1], generator=torch.Generator().manual_seed(1)
        )
        return [value.detach(), *torch.autograd.grad(value, leaves[:-1])]

    with reference_mode():
        want = gradients()
    same(gradients(), want)


def test_r1_of_a_critic_made_of_them():
    """critic_backward on resampled convolutions and modulated ones, against autograd on the references."""

    class Critic(torch.nn.Module):
        def __init__(self):
            super().__init__()
            shapes = [(4, 3, 3, 3), (5, 4, 3, 3), (1, 5, 2, 2)]
            self.weights = torch.nn.ParameterList([x(*s, seed=i) / 3 for i, s in enumerate(shapes)])
            self.style = torch.nn.Parameter(1 + x(4, seed=7))

        def forward(self, images):
            h = ops.bias_act(ops.conv2d_resample(images, self.weights[0], F4, 1, 2, 1), act="swish")
            styles = self.style.expand(len(h), -1)
            h = ops.modulated_conv2d(h, self.weights[1], styles, None, 1, 2, 1, F4, act="lrelu")
            return ops.conv2d_resample(h, self.weights[2]).flatten(1)

    real, fake = x(3, 3, 8, 8), x(3, 3, 8, 8, seed=1)

    def gradients(plan: str) -> list[Tensor]:
        from gan_fast import losses

        critic = Critic().double()
        penalties.critic_backward(
            critic, real=real, fake=fake, loss=losses.NonSaturatingLoss(), r1=3.0, r2=1.0, plan=plan
        )
        return [p.grad for p in critic.parameters()]

    with reference_mode():
        want = gradients("autograd")
    same(gradients("autograd"), want)
    same(gradients("shared"), want)


@both_ways
@pytest.mark.parametrize("up", [1, 2])
def test_compiled_whole_at_any_size(up):
    def layer(a, w, s, n, b):
        return ops.modulated_conv2d(a, w, s, n, up, 1, 1, F4, flip_weight=False, bias=b, act="lrelu", clamp=2.0)

    compiled = torch.compile(layer, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, side in ((2, 5), (3, 8)):
        inputs = [x(batch, 3, side, side), x(4, 3, 3, 3, seed=1), x(batch, 3, seed=2), x(up * side, up * side), x(4)]
        got = derivatives(compiled, inputs, second=False, poisoned=False)
        want = derivatives(layer, inputs, second=False)
        same([*got.values, *got.gradients], [*want.values, *want.gradients])


@both_ways
@pytest.mark.parametrize("up", [1, 2])
def test_shapes_on_the_meta_device(up):
    images, weight, styles, f = (t.to("meta").requires_grad_() for t in (x(2, 3, 4, 5), x(4, 3, 3, 3), x(2, 3), F4))
    y = ops.modulated_conv2d(images, weight, styles, up=up, padding=1, resample_filter=f.detach())
    assert y.is_meta and y.shape == (2, 4, 4 * up, 5 * up)
    y.sum().backward()
    assert images.grad is not None and images.grad.shape == images.shape
    assert ops.modulated_conv2d_v3(images, weight, styles, padding=1).shape == (2, 4, 4, 5)


@both_ways
def test_autocast_narrows_the_image_alone():
    images, weight, styles = x(2, 3, 6, 6).float(), x(4, 3, 3, 3).float(), x(2, 3).float()
    with torch.autocast("cpu", torch.bfloat16):
        y = ops.modulated_conv2d(images, weight, styles, padding=1)
    assert torch.equal(y, ops.modulated_conv2d(images.bfloat16(), weight, styles, padding=1))


@both_ways
def test_transforms():
    images, weight, styles = x(2, 3, 4, 5), x(4, 3, 3, 3), x(2, 3)
    tangent = x(2, 3, seed=3)
    _, got = torch.func.jvp(lambda s: ops.modulated_conv2d(images, weight, s, padding=1), (styles,), (tangent,))
    step = 1e-6
    ends = [ops.modulated_conv2d(images, weight, styles + sign * step * tangent, padding=1) for sign in (1, -1)]
    torch.testing.assert_close(got, (ends[0] - ends[1]) / (2 * step), rtol=1e-6, atol=1e-7)


def test_errors():
    with pytest.raises(ValueError, match=r"styles are \[2, 4\]; expected \[N, I\] = \[2, 3\]"):
        ops.modulated_conv2d(x(2, 3, 4, 4), x(4, 3, 3, 3), x(2, 4))
    with pytest.raises(ValueError, match="3 channels, but the weight"):
        ops.modulated_conv2d_v3(x(2, 3, 4, 4), x(4, 2, 3, 3), x(2, 2))
