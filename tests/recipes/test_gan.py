"""The original GAN: its losses are the formulas on a probability, its networks perceptrons."""

from __future__ import annotations

import pytest
import torch

from gan_fast import losses, recipes


@pytest.mark.parametrize("loss", ["minimax", "non_saturating"])
def test_losses_are_those_of_a_probability(loss):
    """-E log D(x) - E log(1 - D(G(z))) and the generator's, D = sigmoid(l), value and gradient."""
    function, bce = recipes.get("gan", loss=loss).loss_function(), losses.BCELoss()
    r, f = (3 * torch.randn(64, dtype=torch.float64)).requires_grad_(), torch.randn(64).double().requires_grad_()
    real, fake = r.sigmoid(), f.sigmoid()
    ones, zeros = torch.ones(64).double(), torch.zeros(64).double()
    generator = bce(fake, ones) if loss == "non_saturating" else -bce(fake, zeros)
    for ours, formula in (
        (function.discriminator(real=r, fake=f), bce(real, ones) + bce(fake, zeros)),
        (function.generator(fake=f), generator),
    ):
        torch.testing.assert_close(ours, formula)
        pair = [torch.autograd.grad(value, (r, f), allow_unused=True, retain_graph=True) for value in (ours, formula)]
        for mine, theirs in zip(*pair, strict=True):
            assert (mine is None) == (theirs is None)
            if mine is not None:
                torch.testing.assert_close(mine, theirs)


def test_two_perceptrons_on_anything():
    recipe = recipes.get("gan", width=8, depth=2)
    assert recipe.networks((1, 8, 8)) == ("mlp", {"shape": [1, 8, 8], "latent_dim": 64, "width": 8, "depth": 2})
    assert recipe.networks((2,))[1]["latent_dim"] == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"depth": 0}, "depth must be greater than 0"),
        ({"beta1": 1.0}, r"beta1 must be in \[0, 1\)"),
        ({"updates": "simultaneous", "critic_steps": 2}, "use --critic-steps 1"),
        ({"base_channels": 8}, "has no setting 'base_channels'"),
    ],
)
def test_refusals(settings, message):
    with pytest.raises(ValueError, match=message):
        recipes.get("gan", **settings)
