"""DiffAugment against its formulas, one image at a time, with the numbers drawn again."""

from __future__ import annotations

import pytest
import torch

from gan_fast.augment import DiffAugment


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def color(x, u):
    b, s, k = u
    x = x + b - 0.5
    grey = x.mean(0, keepdim=True)
    x = (x - grey) * 2 * s + grey
    return (x - x.mean()) * (k + 0.5) + x.mean()


def translation(x, u):
    _, h, w = x.shape
    dx, dy = (int(float(t) * (2 * (size // 8) + 1)) - size // 8 for t, size in zip(u, (w, h), strict=True))
    out = torch.zeros_like(x)
    for i in range(h):
        for j in range(w):
            if 0 <= i - dy < h and 0 <= j - dx < w:
                out[:, i, j] = x[:, i - dy, j - dx]
    return out


def cutout(x, u):
    _, h, w = x.shape
    left, top = (int(float(t) * (size + 1 - (size // 2) % 2)) - size // 4 for t, size in zip(u, (w, h), strict=True))
    x = x.clone()
    x[:, max(0, top) : max(0, top + h // 2), max(0, left) : max(0, left + w // 2)] = 0
    return x


@pytest.mark.parametrize("formula", [color, translation, cutout], ids=lambda f: f.__name__)
@pytest.mark.parametrize("channels", [1, 3])
def test_transforms(formula, channels):
    x = torch.rand(40, channels, 16, 24, generator=stream(1)) * 2 - 1
    u = torch.rand(40, 3 if formula is color else 2, generator=stream())
    got = DiffAugment(formula.__name__)(x, generator=stream())
    wanted = torch.stack([formula(image, row) for image, row in zip(x, u, strict=True)])
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(got, x)


def test_samples_are_independent_and_shared_out():
    x = torch.rand(4, 3, 16, 16, generator=stream(1))
    whole = DiffAugment()(x, generator=stream())
    for rank in range(2):
        part = DiffAugment(share=(rank, 2))(x[2 * rank :][:2], generator=stream())
        torch.testing.assert_close(part, whole[2 * rank :][:2])


def test_gradients_to_second_order():
    x = torch.rand(2, 2, 9, 8, dtype=torch.float64, generator=stream(1), requires_grad=True)

    def curved(x):
        return DiffAugment()(x, generator=stream()).pow(3)

    assert torch.autograd.gradcheck(curved, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(curved, x, fast_mode=True)


def test_refusals():
    with pytest.raises(ValueError, match="DiffAugment has no transform 'colour': a policy is some of color"):
        DiffAugment("colour")
    with pytest.raises(ValueError, match="expected images"):
        DiffAugment()(torch.zeros(3, 8))
