"""Each of ADA's transforms against a formula of its own, at p = 1 with the numbers drawn again beside it.

Geometry is seen on an image that is a smooth function of its place, f(x, y): moving pixels by G must give f(G^-1 c).
"""

from __future__ import annotations

import math

import pytest
import torch

from gan_fast import losses, models, penalties
from gan_fast.augment import ADA
from gan_fast.augment.ada import POLICIES, TRANSFORMS
from gan_fast.augment.wavelets import SYM6, bands

N, H, W = 5, 48, 64


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


class Numbers:
    """What the transform draws, in its order."""

    def __init__(self, count=N):
        self.stream, self.count = stream(), count

    def uniform(self, *shape):
        return torch.rand(self.count, *shape, generator=self.stream)

    def normal(self, *shape):
        return torch.randn(self.count, *shape, generator=self.stream)

    def gate(self):
        self.uniform()
        return self


def smooth(x, y):
    """`[N, 3, ...]` of places in pixels from the centre."""
    a, b = x * (2 * math.pi / 40), y * (2 * math.pi / 40)
    return torch.stack([torch.sin(a + 0.3), 0.5 * torch.cos(b - 0.4), torch.sin(0.7 * a + 0.9 * b)], 1)


def places():
    y, x = torch.meshgrid(torch.arange(H) + 0.5 - H / 2, torch.arange(W) + 0.5 - W / 2, indexing="ij")
    return x.expand(N, H, W), y.expand(N, H, W)


def turned(x, y, angle):
    c, s = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    return c * x - s * y, s * x + c * y


def col(values):
    return values.view(-1, 1, 1)


def x_flip(n, x, y):
    i = (n.gate().uniform() * 2).floor()
    return torch.where(col(i) == 1, -x, x), y


def rotate_90(n, x, y):
    i = col((n.gate().uniform() * 4).floor())
    px, py = x.clone(), y.clone()
    for k in range(4):
        where = i > k
        px, py = torch.where(where, -py, px), torch.where(where, px, py)
    return px, py


def integer_shift(n, x, y):
    t = n.gate().uniform(2) * 0.25 - 0.125
    return x - col((t[:, 0] * W).round()), y - col((t[:, 1] * H).round())


def scale(n, x, y):
    s = col(2 ** (0.2 * n.gate().normal()))
    return x / s, y / s


def rotate(n, x, y):
    first = (2 * n.gate().uniform() - 1) * math.pi
    second = (2 * n.gate().uniform() - 1) * math.pi
    return turned(x, y, first + second)


def stretch(n, x, y):
    s = col(2 ** (0.2 * n.gate().normal()))
    return x / s, y * s


def fractional_shift(n, x, y):
    t = n.gate().normal(2) * 0.125
    return x - col(t[:, 0] * W), y - col(t[:, 1] * H)


@pytest.mark.parametrize(
    "formula", [x_flip, rotate_90, integer_shift, scale, rotate, stretch, fractional_shift], ids=lambda f: f.__name__
)
def test_geometry(formula):
    """Within 0.02 of a function of height 1, wherever the place read lies inside the image. A turn the other way, a
    shift by half a pixel or a stretch of the wrong axis are off by 0.05 to 1."""
    x, y = places()
    got = ADA(formula.__name__, p=1.0)(smooth(x, y), generator=stream())
    fx, fy = formula(Numbers(), x, y)
    inside = ((fx.abs() < W / 2 - 4) & (fy.abs() < H / 2 - 4))[:, None]
    assert inside.float().mean() > 0.3
    error = ((got - smooth(fx, fy)) * inside).abs().amax()
    assert error < 0.02, float(error)


def test_shifts_reflect_the_border():
    x = torch.rand(1, 1, 16, 16)
    augment = ADA("integer_shift", p=1.0)
    shifted = augment(x, generator=stream(3))
    numbers = Numbers(1)
    numbers.stream = stream(3)
    sx, sy = (round(16 * float(t)) for t in (numbers.gate().uniform(2) * 0.25 - 0.125)[0])
    assert (sx, sy) != (0, 0)
    rows = [(15 - abs((i - sy) % 30 - 15)) for i in range(16)]
    columns = [(15 - abs((i - sx) % 30 - 15)) for i in range(16)]
    near = (shifted - x[:, :, rows][..., columns]).abs()
    assert near.median() < 1e-5 and near.max() < 0.35  # reflected halves meet a filter that is only nearly symmetric


def brightness(n, x):
    return x + col(0.2 * n.gate().normal())[:, None]


def contrast(n, x):
    return x * col(2 ** (0.5 * n.gate().normal()))[:, None]


def luma_flip(n, x):
    i = col((2 * n.gate().uniform()).floor())[:, None]
    return x - 2 * i * x.mean(1, keepdim=True)


def hue(n, x):
    angle = (2 * n.gate().uniform() - 1) * math.pi
    cross = torch.tensor([[0.0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / math.sqrt(3)
    return torch.stack(
        [torch.einsum("ij,jhw->ihw", torch.linalg.matrix_exp(a * cross), y) for a, y in zip(angle, x, strict=True)]
    )


def saturation(n, x):
    grey = x.mean(1, keepdim=True)
    return grey + col(2 ** n.gate().normal())[:, None] * (x - grey)


def noise(n, x):
    strength = col(0.1 * n.gate().normal().abs())[:, None]
    return x + strength * n.normal(*x.shape[1:])


def cutout(n, x):
    centre = n.gate().uniform(2)
    for image, (cx, cy) in zip(x, centre.tolist(), strict=True):
        for i in range(image.shape[1]):
            for j in range(image.shape[2]):
                if abs((j + 0.5) / image.shape[2] - cx) < 0.25 and abs((i + 0.5) / image.shape[1] - cy) < 0.25:
                    image[:, i, j] = 0
    return x


@pytest.mark.parametrize(
    "formula", [brightness, contrast, luma_flip, hue, saturation, noise, cutout], ids=lambda f: f.__name__
)
@pytest.mark.parametrize("channels", [1, 3])
def test_colour_noise_and_cutout(formula, channels):
    x = torch.rand(N, channels, 12, 10, generator=stream(1)) * 2 - 1
    got = ADA(formula.__name__, p=1.0)(x, generator=stream())
    if channels == 1 and formula not in (noise, cutout):
        wanted = formula(Numbers(), x.repeat(1, 3, 1, 1)).mean(1, keepdim=True)
    else:
        wanted = formula(Numbers(), x.clone())
    torch.testing.assert_close(got, wanted, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("band", range(4))
def test_bands(band):
    """Gratings cos(w x) come back with the gains of the bands they are in, by sym2's half-band power
    cos^4(w/2) (1 + 2 sin^2(w/2))."""
    t = 2 ** Numbers().gate().normal()
    power = torch.tensor([10.0, 1, 1, 1]) / 13
    gains = torch.ones(N, 4)
    gains[:, band] = t
    gains = gains / (power * gains.square()).sum(1, keepdim=True).sqrt()

    def low(w):
        return math.cos(w / 2) ** 4 * (1 + 2 * math.sin(w / 2) ** 2)

    for w in (0.0, 0.2, 0.6, 1.2, math.pi):
        shares = [
            low(w) * low(2 * w) * low(4 * w),
            low(w) * low(2 * w) * (1 - low(4 * w)),
            low(w) * (1 - low(2 * w)),
            1 - low(w),
        ]
        grating = torch.cos(w * torch.arange(96.0)).expand(N, 3, 40, 96)
        got = ADA(f"band_{band + 1}", p=1.0)(grating, generator=stream())[..., 30:66]
        # Along the columns the image is constant: the gain of the lowest band.
        wanted = grating[..., 30:66] * (gains @ torch.tensor(shares) * gains[:, 0]).view(-1, 1, 1, 1)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-5)


def test_filters_are_what_their_names_say():
    h = torch.tensor(SYM6, dtype=torch.float64)
    for shift in range(0, 12, 2):
        assert float((h[shift:] * h[: len(h) - shift]).sum()) == pytest.approx(float(shift == 0), abs=1e-9)
    impulse = bands().sum(0)
    assert impulse[21] == pytest.approx(1, abs=1e-6) and impulse.abs().sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("shape", [(3, 3, 8, 8), (2, 1, 9, 20), (1, 3, 64, 64), (0, 3, 16, 16)])
def test_p_0_is_the_identity(policy, shape):
    x = torch.rand(shape, generator=stream(1)) * 2 - 1
    torch.testing.assert_close(ADA(policy, p=0.0)(x, generator=stream()), x, rtol=0, atol=3e-5)


def test_p_is_the_share_of_images_that_change():
    x = torch.rand(2000, 3, 8, 8, generator=stream(1))
    for p in (0.1, 0.5):
        for name in ("contrast", "rotate"):
            changed = (ADA(name, p=p)(x, generator=stream()) - x).abs().flatten(1).amax(1) > 1e-3
            assert float(changed.float().mean()) == pytest.approx(p, abs=0.04), name


def test_samples_are_independent_and_shared_out():
    """An image's augmentation depends on nothing but its place in the whole batch."""
    x = torch.rand(4, 3, 16, 16, generator=stream(1))
    whole = ADA("bgcfnc", p=0.8)(x, generator=stream())
    other = torch.cat([x[:2], torch.rand(2, 3, 16, 16)])
    torch.testing.assert_close(ADA("bgcfnc", p=0.8)(other, generator=stream())[:2], whole[:2], rtol=0, atol=1e-6)
    for rank in range(2):
        part = ADA("bgcfnc", p=0.8, share=(rank, 2))(x[2 * rank :][:2], generator=stream())
        torch.testing.assert_close(part, whole[2 * rank :][:2], rtol=0, atol=1e-6)
    assert not torch.allclose(ADA("bgcfnc", p=0.8)(x, generator=stream(5)), whole)


def test_gradients_to_second_order():
    augment = ADA("bgcfnc", p=0.7).double()
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=stream(1), requires_grad=True)

    def curved(x):
        return augment(x, generator=stream()).pow(3)[:, :, ::3, ::3].sum((2, 3))

    assert torch.autograd.gradcheck(curved, x, fast_mode=True)
    assert torch.autograd.gradgradcheck(curved, x, fast_mode=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dtypes_and_layouts(dtype):
    x = (torch.rand(3, 3, 16, 16, generator=stream(1)) * 2 - 1).to(dtype)
    wanted = ADA("bgcfnc", p=0.9)(x.float(), generator=stream())
    for given in (x, x.to(memory_format=torch.channels_last), x.mT.contiguous().mT):
        got = ADA("bgcfnc", p=0.9)(given, generator=stream())
        assert got.dtype == dtype
        torch.testing.assert_close(got.float(), wanted.to(dtype).float(), rtol=2e-2, atol=1e-2)


def test_inside_the_exact_critic_step():
    """R1 at the images before augmentation, by the shared plan, equal to the formula in float64."""
    _, critic = models.build(
        "dcgan", resolution=8, channels=3, latent_dim=4, base_channels=4, critic_norm="none", seed=1
    )
    critic = critic.double()
    augment = ADA("bgc", p=0.9).double()
    real, fake = (torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=stream(s)) * 2 - 1 for s in (1, 2))
    both = torch.cat([real, fake]).requires_grad_()
    logits = critic(augment(both, generator=stream()))
    (gradient,) = torch.autograd.grad(logits[:4].sum(), both, create_graph=True)
    loss = losses.NonSaturatingLoss().discriminator(real=logits[:4], fake=logits[4:])
    drawn_once = stream()
    wanted = torch.autograd.grad(loss + 0.35 * gradient.square().sum() / 4, list(critic.parameters()))
    penalties.critic_backward(
        critic,
        real=real,
        fake=fake,
        loss=losses.NonSaturatingLoss(),
        r1=0.7,
        plan="shared",
        augment=lambda images: augment(images, generator=drawn_once),
    )
    for p, g in zip(critic.parameters(), wanted, strict=True):
        torch.testing.assert_close(p.grad, g, rtol=1e-8, atol=1e-11)


def test_nothing_is_read_back_from_the_device():
    """Fake tensors have no numbers: whatever looks at one, or makes a shape of one, raises."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    augment = ADA("bgcfnc", p=0.5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.rand(2, 3, 16, 16)
        assert augment(x).shape == x.shape


def test_policies_and_refusals():
    assert len(TRANSFORMS) == 18
    assert ADA("contrast, hue").names == {"contrast", "hue"}
    for make, message in [
        (lambda: ADA("bgx"), "ADA has no transform 'bgx': a policy is one of blit, geom"),
        (lambda: ADA("bgc", p=1.5), r"p=1.5, expected a probability in \[0, 1\]"),
        (lambda: ADA("color")(torch.zeros(1, 2, 8, 8)), "got 2 channels, its colour transforms are for 1 or 3"),
        (lambda: ADA("bg")(torch.zeros(1, 3, 7, 8)), "images of 7x8 pixels, its geometry needs at least 8"),
        (lambda: ADA("bg")(torch.zeros(3, 8, 8)), r"got shape \[3, 8, 8\], expected images"),
    ]:
        with pytest.raises(ValueError, match=message):
            make()
    with pytest.raises(TypeError, match="expected floating-point images"):
        ADA("bg")(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
