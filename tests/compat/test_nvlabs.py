"""Stand-in checkouts whose ops cannot be built import, train and generate under install(), to second order."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from gan_fast import reference_mode
from gan_fast.compat import nvlabs, stylegan3
from gan_fast.compat._run import main

CHECKOUT = Path(__file__).parent / "checkouts" / "stylegan"
NAMES = ("bias_act", "upfirdn2d", "filtered_lrelu", "conv2d_resample", "conv2d_gradfix", "grid_sample_gradfix", "fma")


class WeightGradients(TorchDispatchMode):
    """Counts products that make the gradient of a convolution's weight."""

    def __enter__(self):
        self.count = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func is torch.ops.gan_fast.convolution_weight_gradient.default
        return func(*args, **(kwargs or {}))


def test_names_served_before_import(checkout):
    imported = checkout("stylegan")
    replaced = nvlabs.install()
    assert replaced[:8] == [*(f"torch_utils.ops.{name}" for name in NAMES), "torch_utils.custom_ops"]
    for name in replaced[:8]:
        assert "gan_fast" in imported(name).__file__, name
    package = imported("torch_utils")
    assert package.ops.bias_act is imported("torch_utils.ops.bias_act"), "import binds a submodule to its package"
    for own in ("torch_utils", "torch_utils.ops", "torch_utils.misc"):
        assert "checkouts" in imported(own).__file__, own
    assert nvlabs.install() == replaced, "twice does no harm"
    assert nvlabs.uninstall() == replaced and nvlabs.uninstall() == []
    assert "checkouts" in imported("torch_utils.ops.bias_act").__file__, "the checkout's own again"
    with pytest.raises(ImportError, match="build a plugin"):
        imported("torch_utils.ops.upfirdn2d")
    with pytest.raises(ValueError, match="betas"):
        torch.optim.Adam([torch.zeros(1)], betas=[0, 0.99])


def test_functions_replaced_after_import(checkout):
    imported = checkout("stylegan")
    module = imported("torch_utils.ops.bias_act")
    holder = imported("training")
    holder.activate = original = module.bias_act
    x, b = torch.randn(2, 3, 4), torch.randn(3)
    with pytest.raises(RuntimeError, match="plugin"):
        module.bias_act(x, b)
    nvlabs.install()
    nvlabs.install()
    assert imported("torch_utils.ops.bias_act") is module, "others hold it"
    for function in (module.bias_act, holder.activate):
        torch.testing.assert_close(function(x, b, act="lrelu"), leaky(x, b))
    assert module.activation_funcs["lrelu"].def_gain == module.activation_funcs["swish"]["def_gain"] == 2**0.5
    nvlabs.uninstall()
    assert module.bias_act is holder.activate is original and not hasattr(module, "activation_funcs")


def leaky(x, b):
    return torch.nn.functional.leaky_relu(x + b[:, None], 0.2) * 2**0.5


def test_flags_of_a_module_imported_before(checkout, monkeypatch):
    """The module that a checkout holds obeys its flags, and is itself again afterwards."""
    imported = checkout("stylegan")
    imported("torch_utils.ops")
    module = type(sys)("torch_utils.ops.conv2d_gradfix")
    module.enabled = False
    monkeypatch.setitem(sys.modules, module.__name__, module)
    nvlabs.install()
    nvlabs.install()
    assert module.enabled and not module.weight_gradients_disabled
    module.enabled = False
    assert imported("gan_fast.compat.nvlabs.conv2d_gradfix").enabled is False
    nvlabs.uninstall()
    assert module.enabled is False and not hasattr(module, "conv2d") and type(module) is type(sys)


def test_other_packages(checkout, monkeypatch):
    """A fork that moved its torch_utils; and no checkout at all."""
    imported = checkout("stylegan")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(CHECKOUT)])
    nvlabs.install()
    nvlabs.install("training_fork.torch_utils")
    assert imported("torch_utils.ops.fma").fma is imported("gan_fast").ops.fma
    assert imported("torch_utils").ops.fma is imported("torch_utils.ops.fma")
    with pytest.raises(ModuleNotFoundError, match="training_fork"):
        imported("training_fork.torch_utils.ops.fma")


def test_impl_and_helpers(checkout):
    imported = checkout("stylegan")
    nvlabs.install()
    bias_act, upfirdn2d = (imported(f"torch_utils.ops.{name}") for name in ("bias_act", "upfirdn2d"))
    x, b = torch.randn(2, 3, 5, 4), torch.randn(3)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    for impl in ("cuda", "ref"):
        torch.testing.assert_close(
            bias_act.bias_act(x, b, act="relu", clamp=-1, impl=impl), (x + b[:, None, None]).relu() * 2**0.5
        )
        for call in (upfirdn2d.upsample2d, upfirdn2d.downsample2d, upfirdn2d.filter2d):
            torch.testing.assert_close(call(x, f, impl=impl), call(x, f))
    with pytest.raises(ValueError, match="impl must be 'cuda'"):
        bias_act.bias_act(x, impl="opencl")
    assert upfirdn2d._parse_padding([1, 2]) == (1, 1, 2, 2) and upfirdn2d._parse_padding(3) == (3, 3, 3, 3)
    assert upfirdn2d._get_filter_size(torch.ones(2, 5)) == (5, 2) and upfirdn2d._get_filter_size(None) == (1, 1)
    assert upfirdn2d._parse_scaling([2, 3]) == (2, 3)


def test_no_plugin_is_built(checkout):
    imported = checkout("stylegan")
    nvlabs.install()
    custom_ops = imported("torch_utils.custom_ops")
    with pytest.raises(RuntimeError, match="bias_act_plugin is not built"):
        custom_ops.get_plugin("bias_act_plugin", sources=["bias_act.cpp"])
    assert custom_ops.get_plugin("forks_own", sources=["a.cu"]) == "forks_own built from a.cu"


def train(imported, steps, dtype):
    """A few steps of everything a StyleGAN2 checkout does; the parameters."""
    networks, loss, augment = (imported(f"training.{name}") for name in ("networks", "loss", "augment"))
    torch.manual_seed(0)
    pair = [networks.Generator(), networks.Discriminator()]
    trainer = loss.Loss(*(network.train().to(dtype) for network in pair), augment.AugmentPipe())
    trainer.pl_mean = trainer.pl_mean.to(dtype)
    optimisers = [torch.optim.Adam(network.parameters(), lr=0.01, betas=[0, 0.99]) for network in pair]
    for network in pair:  # filters stay float32, as the originals insist
        for module in network.modules():
            if hasattr(module, "resample_filter"):
                module.resample_filter = module.resample_filter.float()
    for _ in range(steps):
        z, real = torch.randn(3, 6, dtype=dtype), torch.randn(3, 3, 8, 8, dtype=dtype)
        trainer.train_generator(z)
        trainer.path_length(z, torch.randn(3, 3, 8, 8, dtype=dtype))
        optimisers[0].step()
        for network in pair:
            network.zero_grad(set_to_none=True)
        trainer.train_discriminator(real, z)
        optimisers[1].step()
        for network in pair:
            network.zero_grad(set_to_none=True)
    with torch.no_grad():
        image = pair[0].eval()(torch.randn(2, 6, dtype=dtype))
    return [p.detach() for network in pair for p in network.parameters()], image


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-7), (torch.float32, 2e-2)])
def test_stylegan2_trains_as_the_reference(checkout, dtype, tolerance):
    """R1, path length, augmentation and Adam, three steps: the references' parameters and picture."""
    imported = checkout("stylegan")
    nvlabs.install()
    parameters, image = train(imported, 3, dtype)
    with reference_mode():
        expected, expected_image = train(imported, 3, dtype)
    assert image.isfinite().all()
    for got, want in zip([*parameters, image], [*expected, expected_image], strict=True):
        torch.testing.assert_close(got, want, rtol=tolerance, atol=tolerance)


def test_stylegan3_layers(checkout):
    imported = checkout("stylegan")
    nvlabs.install()
    torch.manual_seed(0)
    generator = imported("training.networks_stylegan3").Generator()
    for layer in generator.layers:
        layer.double()
        layer.up_filter, layer.down_filter = layer.up_filter.float(), layer.down_filter.float()
    generator.double()
    z = torch.randn(2, 6, dtype=torch.float64)

    def second_order():
        latents = z.clone().requires_grad_()
        image = generator(latents)
        (g,) = torch.autograd.grad(image.square().sum(), latents, create_graph=True)
        return [image, g, *torch.autograd.grad(g.square().sum(), list(generator.parameters()))]

    got = second_order()
    with reference_mode():
        want = second_order()
    assert got[0].shape[0] == 2 and got[0].std() > 0
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


def test_stylegan3s_modulated_convolution(checkout):
    """The fused one under its own name, against the stand-in's, which is written out from the formula."""
    imported = checkout("stylegan")
    nvlabs.install()
    own, fused = imported("training.networks_stylegan3").modulated_conv2d, stylegan3.modulated_conv2d
    x, w, s = (torch.randn(*shape, dtype=torch.float64) for shape in ((2, 3, 5, 6), (4, 3, 3, 3), (2, 3)))
    torch.testing.assert_close(fused(x, w, s, padding=2), own(x, w, s, padding=2))


def test_r3gan_blocks(checkout):
    """Zero-centred penalty through a block: float64 to the reference's gradients, bfloat16 in its own dtype."""
    imported = checkout("stylegan")
    nvlabs.install()
    torch.manual_seed(0)
    block = imported("R3GAN.networks").Block().double()
    x = torch.randn(2, 4, 6, 5, dtype=torch.float64)

    def penalty_gradients():
        images = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(block(images).square().sum(), images, create_graph=True)
        return torch.autograd.grad(g.square().sum(), list(block.parameters()))

    got = penalty_gradients()
    with reference_mode():
        want = penalty_gradients()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)
    block.to(torch.bfloat16)
    y = block(x.bfloat16().to(memory_format=torch.channels_last))
    assert y.dtype == torch.bfloat16 and y.isfinite().all()


def critic_and_images(imported):
    torch.manual_seed(0)
    gradfix = imported("torch_utils.ops.conv2d_gradfix")
    first = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    second = torch.randn(4, 2, 3, 3, dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(4, dtype=torch.float64, requires_grad=True)

    def logits(x):
        y = torch.tanh(gradfix.conv2d(x, first, bias, padding=1))
        return gradfix.conv_transpose2d(y, second, stride=2, groups=2).tanh().sum([1, 2, 3])

    return gradfix, logits, [first, second], bias, torch.randn(2, 3, 6, 5, dtype=torch.float64)


def test_no_weight_gradients(checkout):
    """Inside: none is computed, whatever was asked. The double backward outside computes all, and rightly."""
    imported = checkout("stylegan")
    nvlabs.install()
    gradfix, logits, weights, bias, images = critic_and_images(imported)
    with gradfix.no_weight_gradients(), WeightGradients() as products:
        logits(images).sum().backward()
    assert products.count == 0 and all(w.grad is None for w in weights) and bias.grad is not None
    assert not gradfix.weight_gradients_disabled

    def r1():
        real = images.clone().requires_grad_()
        with gradfix.no_weight_gradients(), WeightGradients() as products:
            (g,) = torch.autograd.grad([logits(real).sum()], [real], create_graph=True, only_inputs=True)
        assert products.count == 0
        return torch.autograd.grad(g.square().sum(), weights)

    got = r1()
    gradfix.enabled = False  # torch's own convolutions
    want = r1()
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("leaf", [True, False])
def test_no_weight_gradients_keeps_what_flows_through_a_weight(checkout, leaf):
    """In a fused modulated convolution the styles' gradient comes through the weight: it stays."""
    imported = checkout("stylegan")
    nvlabs.install()
    gradfix = imported("torch_utils.ops.conv2d_gradfix")
    torch.manual_seed(0)
    generator = imported("training.networks").Generator().eval().double()
    for layer in generator.children():
        if hasattr(layer, "resample_filter"):
            layer.resample_filter = layer.resample_filter.float()
    z, y = torch.randn(2, 6, dtype=torch.float64), torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def path_length(block):
        ws = generator.mapping(z).unsqueeze(1).repeat(1, 3, 1)
        ws = ws.detach().requires_grad_() if leaf else ws
        image = generator.synthesis(ws, fused_modconv=True)
        with block:
            (g,) = torch.autograd.grad([(image * y).sum()], [ws], create_graph=True, only_inputs=True)
        return [g, *torch.autograd.grad(g.square().sum(), [generator.conv0.weight, generator.conv1.affine.weight])]

    for got, want in zip(
        path_length(gradfix.no_weight_gradients()), path_length(contextlib.nullcontext()), strict=True
    ):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_no_weight_gradients_of_scaled_and_asked_for_weights(checkout):
    """A weight times its gain is a weight; asked for by name it has no gradient, by either way of asking."""
    imported = checkout("stylegan")
    nvlabs.install()
    gradfix = imported("torch_utils.ops.conv2d_gradfix")
    weight, x = torch.randn(4, 3, 3, 3, requires_grad=True), torch.randn(2, 3, 6, 5, requires_grad=True)
    scaled = weight * 0.3
    with gradfix.no_weight_gradients(), WeightGradients() as products:
        for target in (weight, scaled):
            y = gradfix.conv2d(x, scaled).square().sum()
            dx, dw = torch.autograd.grad(y, [x, target], allow_unused=True, retain_graph=True)
            assert dw is None and dx is not None
        gradfix.conv2d(x, scaled).sum().backward(inputs=[x, weight], retain_graph=True)
        gradfix.conv2d(x, scaled).sum().backward()
    assert products.count == 0 and weight.grad is None and x.grad is not None


def test_flags_of_gradients(checkout):
    imported = checkout("stylegan")
    nvlabs.install()
    gradfix, logits, weights, _, images = critic_and_images(imported)

    def computed():
        for weight in weights:
            weight.grad = None
        logits(images).sum().backward()
        return all(weight.grad is not None for weight in weights)

    assert computed()
    with gradfix.no_weight_gradients(disable=False):
        assert computed()
    with gradfix.no_weight_gradients(True), gradfix.no_weight_gradients(False):
        assert not computed(), "an inner block without effect"
    gradfix.weight_gradients_disabled = True
    assert not computed()
    gradfix.enabled = False
    assert computed(), "torch's own convolutions have no such switch"
    nvlabs.uninstall()
    assert gradfix.enabled and computed(), "the switch goes back with the rest"


def test_script_under_the_runner(checkout, monkeypatch, capsys):
    """A script that says cuda and integer betas, on the CPU, with its own arguments."""
    monkeypatch.setattr(sys, "argv", ["gan_fast"])
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    assert main("gan_fast.compat.nvlabs", nvlabs.install, ["--device", "cpu", str(CHECKOUT / "train.py"), "--x=1"]) == 0
    out, err = capsys.readouterr()
    assert "argument ['--x=1'] finite True ms True" in out and "runs on the CPU" in err
    assert torch.cuda.Event.__module__ == "torch.cuda.streams", "the stand-ins are gone again"
    with pytest.raises(SystemExit, match="2"):
        main("gan_fast.compat.nvlabs", nvlabs.install, ["nowhere.py"])
    assert "nowhere.py is not a file" in capsys.readouterr().err


@pytest.mark.slow
def test_runner_in_a_process_with_ranks(tmp_path):
    """`python -m gan_fast.compat.nvlabs train.py`: what the script spawns has the ops too."""
    root = str(Path(nvlabs.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), root]))}
    command = [sys.executable, "-m", "gan_fast.compat.nvlabs", "--device=cpu", str(CHECKOUT / "train.py"), "--ranks=2"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=240)
    assert done.returncode == 0, done.stderr
    assert "child 0 gan_fast.compat.nvlabs.bias_act gan_fast.compat.nvlabs.custom_ops" in done.stdout
