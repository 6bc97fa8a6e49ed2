"""models.stylegan2: names and counts of the public networks, values against formulas, truncation, noise, precision."""

from __future__ import annotations

import pytest
import torch

from gan_fast import models
from gan_fast.models import stylegan2
from models import stylegan2_formulas as formulas
from support.kernels import needs_kernels

ARCHITECTURES = ("orig", "skip", "resnet")
SMALL = {"latent_dim": 12, "w_dim": 16, "mapping_layers": 3, "channel_base": 128, "channel_max": 12}


def small(resolution=16, architecture="skip", seed=0, **settings):
    generator, critic = models.build(
        "stylegan2",
        resolution=resolution,
        generator_architecture=architecture,
        critic_architecture="skip" if architecture == "skip" else architecture,
        seed=seed,
        **{**SMALL, **settings},
    )
    # Fresh networks have no noise, no biases and a mean style of zero: give them some, so that mistakes show.
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed + 1)
        for network in (generator, critic):
            for name, parameter in network.named_parameters():
                if name.endswith(("bias", "noise_strength")):
                    parameter += 0.3 * torch.randn(parameter.shape)
        generator.mapping.w_avg.normal_(std=0.1)
    return generator, critic


# The table that StyleGAN2-ADA prints for 1024x1024 with two mapping layers, as published in logs: parameters, buffers.
PUBLISHED_GENERATOR = {
    "mapping.fc0": (262656, 0),
    "mapping.fc1": (262656, 0),
    "synthesis.b4.conv1": (2622465, 32),
    "synthesis.b4.torgb": (264195, 0),
    "synthesis.b8.conv0": (2622465, 80),
    "synthesis.b16.conv1": (2622465, 272),
    "synthesis.b64.conv1": (2622465, 4112),
    "synthesis.b128.conv0": (1442561, 16400),
    "synthesis.b128.conv1": (721409, 16400),
    "synthesis.b128.torgb": (132099, 0),
    "synthesis.b1024.conv0": (51297, 1048592),
    "synthesis.b1024.conv1": (25665, 1048592),
    "synthesis.b1024.torgb": (16515, 0),
    "": (28794124, 2797104),
}
PUBLISHED_CRITIC = {
    "b1024.fromrgb": (128, 16),
    "b1024.skip": (2048, 16),
    "b1024.conv0": (9248, 16),
    "b1024.conv1": (18496, 16),
    "b128.conv1": (1180160, 16),
    "b8.skip": (262144, 16),
    "b4.conv": (2364416, 16),
    "b4.fc": (4194816, 0),
    "b4.out": (513, 0),
    "": (29012513, 544),
}


def counts(module):
    return sum(p.numel() for p in module.parameters()), sum(b.numel() for b in module.buffers())


def test_published_networks_at_1024():
    synthesis = {"channel_base": 32768, "channel_max": 512, "num_fp16_res": 4, "conv_clamp": 256}
    generator = stylegan2.Generator(512, 0, 512, 1024, 3, {"num_layers": 2}, synthesis)
    critic = stylegan2.Discriminator(0, 1024, 3, num_fp16_res=4, conv_clamp=256)
    for network, published in ((generator, PUBLISHED_GENERATOR), (critic, PUBLISHED_CRITIC)):
        assert {name: counts(network.get_submodule(name)) for name in published} == published
    assert generator.num_ws == 18
    halves = [side for side in generator.synthesis.block_resolutions if _block(generator.synthesis, side).low_precision]
    assert halves == [128, 256, 512, 1024]
    assert [side for side in critic.block_resolutions if _block(critic, side).low_precision] == halves[::-1]
    # Configuration F of the paper has eight mapping layers: 6 x 262,656 more.
    assert counts(generator)[0] + 6 * 262656 == 30370060


def _block(network, side):
    return getattr(network, f"b{side}")


LAYER = ["affine.bias", "affine.weight", "bias", "noise_const", "noise_strength", "resample_filter", "weight"]
RGB = ["affine.bias", "affine.weight", "bias", "weight"]
CONV = ["bias", "resample_filter", "weight"]
BARE = ["resample_filter", "weight"]
DENSE = ["bias", "weight"]


def spelled(table):
    return sorted(f"{owner}.{name}" if owner else name for owner, names in table.items() for name in names)


def generator_names(architecture):
    table = {f"mapping.fc{i}": DENSE for i in range(8)}
    table["mapping"] = ["w_avg"]
    table["synthesis.b4"] = ["const", "resample_filter"]
    table["synthesis.b4.conv1"] = LAYER
    for side in (8, 16, 32, 64):
        table[f"synthesis.b{side}"] = ["resample_filter"]
        table[f"synthesis.b{side}.conv0"] = table[f"synthesis.b{side}.conv1"] = LAYER
        if architecture == "resnet":
            table[f"synthesis.b{side}.skip"] = BARE
    for side in (4, 8, 16, 32, 64) if architecture == "skip" else (64,):
        table[f"synthesis.b{side}.torgb"] = RGB
    return table


def critic_names(architecture):
    table = {"b4.conv": CONV, "b4.fc": DENSE, "b4.out": DENSE}
    for side in (64, 32, 16, 8):
        table[f"b{side}"] = ["resample_filter"]
        table[f"b{side}.conv0"] = table[f"b{side}.conv1"] = CONV
        if architecture == "resnet":
            table[f"b{side}.skip"] = BARE
    for side in (64, 32, 16, 8, 4) if architecture == "skip" else (64,):
        table[f"b{side}.fromrgb"] = CONV
    return table


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("classes", [0, 10])
def test_names_at_64(architecture, classes):
    generator = stylegan2.Generator(8, classes, 8, 64, 3, {}, {"channel_max": 4, "architecture": architecture})
    critic = stylegan2.Discriminator(classes, 64, 3, architecture, channel_max=4)
    g, d = generator_names(architecture), critic_names(architecture)
    if classes:
        g["mapping.embed"] = d["mapping.embed"] = DENSE
        d |= {f"mapping.fc{i}": DENSE for i in range(8)}
    assert sorted(generator.state_dict()) == spelled(g)
    assert sorted(critic.state_dict()) == spelled(d)
    parameters = {name for name, _ in [*generator.named_parameters(), *critic.named_parameters()]}
    assert not any(name.endswith(("filter", "noise_const", "w_avg")) for name in parameters)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("resolution", "classes", "clamp"), [(8, 0, None), (16, 5, None), (16, 0, 0.7)])
def test_values_are_those_of_the_formulas(architecture, resolution, classes, clamp):
    generator, critic = small(resolution, architecture, classes=classes, conv_clamp=clamp)
    generator.double().eval(), critic.double()
    z = torch.randn(8, 12, dtype=torch.float64)
    c = torch.eye(5, dtype=torch.float64)[torch.arange(8) % 5] if classes else None
    g, d = generator.state_dict(), critic.state_dict()
    w = formulas.mapping(formulas.sub(g, "mapping"), z, c)
    ws = w[:, None].expand(-1, generator.num_ws, -1)
    synthesis = formulas.sub(g, "synthesis")
    for mode in ("const", "none"):
        expected = formulas.synthesis(synthesis, ws, architecture, mode == "const", clamp)
        torch.testing.assert_close(generator(z, c, noise_mode=mode), expected, rtol=1e-9, atol=1e-9)
    cut = ws.clone()
    cut[:, :2] = g["mapping.w_avg"] + 0.6 * (ws[:, :2] - g["mapping.w_avg"])
    expected = formulas.synthesis(synthesis, cut, architecture, True, clamp)
    images = generator(z, c, truncation_psi=0.6, truncation_cutoff=2, noise_mode="const")
    torch.testing.assert_close(images, expected, rtol=1e-9, atol=1e-9)
    logits = formulas.discriminator(d, expected, c, architecture, clamp)
    torch.testing.assert_close(critic(expected, c), logits, rtol=1e-8, atol=1e-9)
    assert logits.shape == (8, 1) and logits.std() > 0


def test_every_layer_of_styles_is_used_once_and_in_order():
    generator, _ = small(32, "resnet")
    ws = torch.randn(1, generator.num_ws, 16).requires_grad_()
    assert generator.num_ws == 8
    generator.synthesis(ws, noise_mode="const").sum().backward()
    assert (ws.grad[0].abs().sum(1) > 0).all()


def test_mean_style_is_tracked_in_training_alone():
    generator, _ = small()
    mapping = generator.mapping
    z = torch.randn(4, 12)
    before = mapping.w_avg.clone()
    w = generator.eval().mapping(z)[:, 0]
    generator.mapping(z, skip_w_avg_update=True)
    assert torch.equal(mapping.w_avg, before)
    generator.train().mapping(z, skip_w_avg_update=True)
    generator.mapping(z, update_emas=False)
    assert torch.equal(mapping.w_avg, before)
    generator(z)
    torch.testing.assert_close(mapping.w_avg, before + 0.005 * (w.mean(0) - before))
    generator.eval().mapping(z, update_emas=True)
    torch.testing.assert_close(mapping.w_avg, before + (1 - 0.995**2) * (w.mean(0) - before))
    assert not mapping.w_avg.requires_grad


def test_truncation():
    mapping = small()[0].eval().mapping
    z = torch.randn(3, 12)
    w = mapping(z)
    assert torch.equal(mapping(z, truncation_psi=0)[1, 2], mapping.w_avg)
    torch.testing.assert_close(mapping(z, truncation_psi=0.5), (w + mapping.w_avg) / 2)
    part = mapping(z, truncation_psi=0.5, truncation_cutoff=3)
    assert torch.equal(part[:, 3:], w[:, 3:]) and not torch.equal(part[:, :3], w[:, :3])
    torch.testing.assert_close(mapping.truncate(w, 0.5, 3), part)


def test_noise_modes_and_noise_that_belongs_to_its_seed():
    generator, _ = small()
    generator.eval()
    z = torch.randn(3, 12)
    assert torch.equal(generator(z, noise_mode="const"), generator(z, noise_mode="const"))
    assert not torch.equal(generator(z), generator(z))
    assert not torch.equal(generator(z, noise_mode="none"), generator(z, noise_mode="const"))

    def streams(*seeds):
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = generator(z, noise_generator=streams(1, 2, 3))
    for i in range(3):
        alone = generator(z[i : i + 1], noise_generator=streams(i + 1))
        torch.testing.assert_close(alone[0], together[i], rtol=1e-4, atol=1e-5)
    one = generator(z, noise_generator=torch.Generator().manual_seed(4))
    assert torch.equal(one, generator(z, noise_generator=torch.Generator().manual_seed(4)))
    with pytest.raises(ValueError, match="one for each of 3 samples, got 2"):
        generator(z, noise_generator=streams(1, 2))


def test_half_precision_is_near_and_only_where_asked():
    wide, critic = small(32, seed=3)
    half, half_critic = small(32, seed=3, num_fp16_res=2, low_precision="bf16", conv_clamp=256)
    for a, b in ((wide, half), (critic, half_critic)):
        b.load_state_dict(a.state_dict())
    z = torch.randn(4, 12)
    seen = {}
    for side in (4, 8, 16, 32):
        block = getattr(half.synthesis, f"b{side}")
        block.register_forward_hook(lambda _, __, out, side=side: seen.update({side: (out[0].dtype, out[1].dtype)}))
    a, b = wide.eval()(z, noise_mode="const"), half.eval()(z, noise_mode="const")
    assert seen == {s: (torch.bfloat16 if s >= 16 else torch.float32, torch.float32) for s in (4, 8, 16, 32)}
    assert (a - b).abs().mean() < 0.02 * a.std() and not torch.equal(a, b)
    assert torch.equal(half(z, noise_mode="const", force_fp32=True), a)
    da, db = critic(a), half_critic(a)
    assert db.dtype == torch.float32 and (da - db).abs().max() < 0.05 * da.abs().max() and not torch.equal(da, db)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(wide(z, noise_mode="const"), a), "autocast changed a precision that the network chooses"
        assert torch.equal(critic(a), da)
    # float16 without a card runs in the weights' dtype.
    half.synthesis.b16.low_precision = half.synthesis.b32.low_precision = "fp16"
    torch.testing.assert_close(half(z, noise_mode="const"), a)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_clamped_layers_bound_half_precision(precision):
    generator, _ = small(16, num_fp16_res=2, low_precision=precision, conv_clamp=1.5)
    tops = []
    generator.synthesis.b16.conv1.register_forward_hook(lambda _, __, out: tops.append(out.detach().abs().max()))
    with torch.no_grad():
        generator.synthesis.b16.conv1.bias += 100
    generator(torch.randn(2, 12))
    assert tops[0] == 1.5


def test_memory_format_changes_nothing():
    z = torch.randn(3, 12)
    last, last_critic = small(16, channels_last=True)
    first, first_critic = small(16, channels_last=False)
    a, b = last.eval()(z, noise_mode="const"), first.eval()(z, noise_mode="const")
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(last_critic(a), first_critic(a), rtol=1e-4, atol=1e-5)


def test_seed_decides_the_networks():
    first, second, other = small(seed=1), small(seed=1), small(seed=2)
    for a, b in zip(first, second, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
    assert not torch.equal(first[0].synthesis.b4.const, other[0].synthesis.b4.const)


def test_initial_activations_have_unit_size():
    """Equalised learning rate: at the start every layer passes variance on."""
    generator, critic = models.build("stylegan2", resolution=32, channel_base=2048, channel_max=64, seed=0)
    sizes = {}
    for name, module in [*generator.synthesis.named_modules(), *critic.named_modules()]:
        if name.endswith(("conv0", "conv1")):
            module.register_forward_hook(
                lambda _, __, out, name=name: sizes.update({name: float(out.detach().square().mean())})
            )
    w = generator.mapping(torch.randn(8, 512))
    # The multiplier's weights N(0, 1/m^2) come out at the size of z: w is about as large as a normal vector.
    assert 0.3 < w.square().mean() < 3
    critic(generator.synthesis(w))
    assert all(0.2 < size < 5 for size in sizes.values()), sizes
    assert (generator.synthesis.b8.conv0.affine.bias == 1).all()


def test_frozen_layers():
    _, critic = small(16, "resnet", freeze_layers=5)
    frozen = {name.rpartition(".")[0] for name, p in critic.named_parameters() if not p.requires_grad}
    assert frozen == {"b16.fromrgb", "b16.conv0", "b16.conv1", "b16.skip", "b8.conv0"}


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stylegan2.Generator(8, 0, 8, 48, 3), "power of two from 4, got 48"),
        (lambda: stylegan2.Discriminator(0, 4, 3), "power of two from 8, got 4"),
        (lambda: stylegan2.Generator(8, 0, 8, 16, 3, {}, {"architecture": "unet"}), "orig, skip, resnet, got 'unet'"),
        (lambda: small()[0](torch.randn(2, 7)), r"z must be \[N, 12\], got \[2, 7\]"),
        (lambda: small(classes=3)[0](torch.randn(2, 12)), r"class-conditional: give it c \[N, 3\]"),
        (lambda: small(classes=3)[0](torch.randn(2, 12), torch.eye(3)), "one batch, got 2 and 3"),
        (lambda: small()[0](torch.randn(2, 12), noise_mode="fixed"), "random, const, none, got 'fixed'"),
        (lambda: small()[1](torch.randn(2, 3, 8, 8)), r"img must be \[N, 3, 16, 16\]"),
        (lambda: small(low_precision="fp8", num_fp16_res=1), "fp16, bf16, got 'fp8'"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_blocks_compile_whole():
    generator, critic = small(8, channels_last=True)
    w, x = torch.randn(2, 16), torch.randn(2, 12, 4, 4).to(memory_format=torch.channels_last)
    for block, inputs in (
        (lambda x, w: generator.synthesis.b8.conv0(x, w, noise_mode="const"), (x, w)),
        (lambda x: critic.b4(x, torch.ones(2, 3, 4, 4), None), (x,)),
    ):
        compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
        torch.testing.assert_close(compiled(*inputs), block(*inputs))


@pytest.mark.slow
@needs_kernels
def test_networks_compile_whole():
    """One graph for each network, the same numbers, and another batch size without a failure."""
    generator, critic = small(8, "resnet", classes=3)
    generator.eval()
    compiled, compiled_critic = (torch.compile(n, fullgraph=True) for n in (generator, critic))
    for count in (4, 3):
        z, c = torch.randn(count, 12), torch.eye(3)[torch.arange(count) % 3]
        images = compiled(z, c, noise_mode="const")
        torch.testing.assert_close(images, generator(z, c, noise_mode="const"), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(compiled_critic(images, c), critic(images, c), rtol=1e-4, atol=1e-5)
    compiled_critic(compiled(z, c, noise_mode="const"), c).sum().backward()
