"""Directions are the strongest there are, mixed styles come from where they should, a projected picture is found."""

from __future__ import annotations

import pytest
import torch

from gan_fast import editing, models
from gan_fast.editing.directions import style_layers


@pytest.fixture(scope="module")
def generator():
    generator, _ = models.build(
        "stylegan2", resolution=16, latent_dim=16, w_dim=12, mapping_layers=2, channel_base=256, channel_max=16, seed=0
    )
    with torch.no_grad():
        for layer in generator.modules():
            if hasattr(layer, "noise_strength"):
                layer.noise_strength.fill_(0.05)
        generator.mapping.w_avg.copy_(generator.mapping(torch.randn(500, 16))[:, 0].mean(0))
    return generator.eval().requires_grad_(False)


def test_directions_maximise_the_change_of_styles(generator):
    layers = (1, 2)
    found = editing.edit_directions(generator, layers, count=5)
    assert found.layers == layers and found.vectors.shape == (5, 12)
    torch.testing.assert_close(found.vectors @ found.vectors.t(), torch.eye(5), rtol=0, atol=1e-5)
    affines = [style_layers(generator)[i].affine for i in layers]

    def change(n):
        return torch.cat([affine(n[None]) - affine(torch.zeros(1, 12)) for affine in affines], 1).norm()

    for vector, strength in zip(found.vectors, found.strengths, strict=True):
        torch.testing.assert_close(change(vector), strength, rtol=1e-4, atol=1e-5)
        assert vector[vector.abs().argmax()] > 0
    assert (found.strengths.diff() <= 0).all()
    others = torch.nn.functional.normalize(torch.randn(200, 12), dim=1)
    assert max(change(n) for n in others) <= found.strengths[0]
    # Among all that are orthogonal to the first, the second.
    others = torch.nn.functional.normalize(others - (others @ found.vectors[0])[:, None] * found.vectors[0], dim=1)
    assert max(change(n) for n in others) <= found.strengths[1] * 1.0001
    assert editing.edit_directions(generator).vectors.shape == (12, 12)


def test_move_touches_the_chosen_layers_alone(generator):
    ws = generator.mapping(torch.randn(2, 16))
    direction = editing.edit_directions(generator, [0]).vectors[0]
    moved = editing.move(ws, direction, 2.0, layers=[0, 3])
    assert torch.equal(moved[:, 1:3], ws[:, 1:3]) and torch.equal(moved[:, 4:], ws[:, 4:])
    torch.testing.assert_close(moved[:, 0], ws[:, 0] + 2 * direction)
    each = editing.move(ws, direction, torch.tensor([0.0, 1.0]))
    assert torch.equal(each[0], ws[0]) and not torch.equal(each[1], ws[1])


def test_style_mix(generator):
    rows, columns = generator.mapping(torch.randn(3, 16)), generator.mapping(torch.randn(2, 16))
    table = editing.style_mix(generator, rows, columns, [0, 1], batch=4)
    assert table.shape == (3, 2, 3, 16, 16)
    mixed = torch.cat([columns[1:, :2], rows[2:, 2:]], 1)
    torch.testing.assert_close(table[2, 1], generator.synthesis(mixed, noise_mode="const")[0], rtol=1e-4, atol=1e-5)
    everything = editing.style_mix(generator, rows, columns, range(generator.num_ws))
    torch.testing.assert_close(everything[0], everything[1], rtol=1e-4, atol=1e-5)


def test_projection_finds_a_generated_picture(generator):
    torch.manual_seed(3)
    target = generator(torch.randn(1, 16), noise_mode="const")[0]
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    torch.manual_seed(11)
    expected = torch.rand(2)
    torch.manual_seed(11)
    found = editing.project(generator, target, steps=150, seed=1)
    assert torch.equal(torch.rand(2), expected), "projection moved torch's global stream"
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    start = generator.synthesis(generator.mapping.w_avg.expand(1, generator.num_ws, 12), noise_mode="const")
    assert found.distance < 0.1 * editing.pyramid_distance(start, target[None])
    assert len(found.distances) == 150 and found.image.shape == (1, 3, 16, 16)
    for noise in found.noise.values():
        assert abs(noise.mean()) < 1e-5 and abs(noise.square().mean() - 1) < 1e-4
    again = editing.project(generator, target, steps=5, seed=1)
    assert torch.equal(again.ws, editing.project(generator, target, steps=5, seed=1).ws)
    # ws and noise give the picture: loaded into a generator they are all that is needed.
    other, _ = models.build(
        "stylegan2", resolution=16, latent_dim=16, w_dim=12, mapping_layers=2, channel_base=256, channel_max=16
    )
    other.load_state_dict({**generator.state_dict(), **found.noise})
    torch.testing.assert_close(other.synthesis(found.ws, noise_mode="const"), found.image)


def test_projection_takes_a_distance_of_ones_own(generator):
    target = generator(torch.randn(1, 16), noise_mode="const")[0]
    seen = []

    def distance(a, b):
        return (a.mean([2, 3]) - b.mean([2, 3])).square().mean()

    found = editing.project(
        generator,
        target,
        steps=10,
        distance=distance,
        with_noise=False,
        progress=lambda step, value: seen.append((step, value)),
    )
    assert [value for _, value in seen] == found.distances
    assert torch.equal(found.noise["synthesis.b4.conv1.noise_const"], generator.synthesis.b4.conv1.noise_const)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: editing.edit_directions(g, [9]), "among 0 to 5 of this generator, got \\[9\\]"),
        (lambda g: editing.edit_directions(g, []), "got \\[\\]"),
        (lambda g: editing.edit_directions(g, count=13), "count must be between 1 and 12"),
        (lambda g: editing.move(torch.zeros(1, 6, 12), torch.zeros(8), 1), "expected \\[N, num_ws, w_dim\\]"),
        (lambda g: editing.move(torch.zeros(1, 6, 12), torch.zeros(12), 1, [6]), "among 0 to 5, got \\[6\\]"),
        (lambda g: editing.style_mix(g, torch.zeros(1, 12), torch.zeros(1, 6, 12), [0]), "rows must be styles"),
        (lambda g: editing.project(g, torch.zeros(3, 8, 8)), "the picture is \\[3, 8, 8\\], expected \\[3, 16, 16\\]"),
        (lambda g: editing.project(g, torch.zeros(3, 16, 16), steps=0), "must be positive, got 0"),
    ],
)
def test_refusals(generator, call, message):
    with pytest.raises(ValueError, match=message):
        call(generator)
