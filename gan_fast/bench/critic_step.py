"""The critic's step with its penalties, 16 real and 16 fake images, against what users write in plain PyTorch.

    r1_r2       softplus(D(y) - D(x)) + 1/2 E|grad_x D(x)|^2 + 1/2 E|grad_y D(y)|^2
    r1_phase    1/2 E|grad_x D(x)|^2 alone, as written, with and without `fast_double_backward`
    wgan_gp     E D(y) - E D(x) + 10 E (|grad_z D(z)| - 1)^2 between real and fake images

Two critics: DCGAN's, 64x64, 64 to 512 channels, with and without biases, and one of R3GAN's shape, 32x32, of bottleneck
blocks with grouped 3x3 convolutions. Each spelling in use runs: the critic called on real and fake images apart, and on
both at once; loss and penalties in one backward, and in phases of their own. Gradients are judged over several seeds by

    worst over parameters p of |g_p - t_p| / |t_p|,     t in float64

(where t_p is nothing but cancellation, as of a last bias under the relativistic loss: over |t|) because a kink that
falls the other way moves a gradient far more than rounding does: the median error of a contender may not exceed that of
plain autograd by more than a factor.

torch.compile (`penalties.compile_step` of the one call) stands beside them on the DCGAN critic. On R3GAN's shape it
unrolls aten's loop over the groups: 511 seconds to compile, on a loaded machine, and 10 and more a step.
"""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gan_fast import losses, penalties
from gan_fast.bench.cases import Case, Contender, Prepared, Role, WrongResult

# Of autograd's own error, by dtype; and what that may be at most, or the job is not this one.
ERROR_FACTOR = {torch.float32: 2.0, torch.bfloat16: 1.25}
ERROR_CEILING = {torch.float32: 2e-2, torch.bfloat16: 0.5}
LAYOUTS = {"nchw": torch.contiguous_format, "channels_last": torch.channels_last}

Score = Callable[[Tensor], Tensor]  # images -> logits [N]
Step = Callable[["Setting"], object]  # accumulates into .grad of the critic


class Bottleneck(nn.Module):
    """x + down(act(grouped 3x3(act(up x)))), twice as wide inside, with biases in the activations."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.up = nn.Conv2d(width, 2 * width, 1, bias=False)
        self.grouped = nn.Conv2d(2 * width, 2 * width, 3, padding=1, groups=groups, bias=False)
        self.down = nn.Conv2d(2 * width, width, 1, bias=False)
        self.biases = nn.ParameterList(nn.Parameter(torch.zeros(2 * width, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.up(x) + self.biases[0], 0.2)
        y = F.leaky_relu(self.grouped(y) + self.biases[1], 0.2)
        return x + self.down(y)


def r3gan_shaped(widths: Sequence[int], groups: Sequence[int]) -> nn.Module:
    """Two bottlenecks a stage, average pooling between stages, a depthwise 4x4 head; logits `[N, 1]`."""
    layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 1)]
    for i, (width, count) in enumerate(zip(widths, groups, strict=True)):
        if i:
            layers.append(nn.AvgPool2d(2))
            if width != widths[i - 1]:
                layers.append(nn.Conv2d(widths[i - 1], width, 1, bias=False))
        layers += [Bottleneck(width, count), Bottleneck(width, count)]
    head = nn.Conv2d(widths[-1], widths[-1], 4, groups=widths[-1], bias=False)
    return nn.Sequential(*layers, head, nn.Flatten(), nn.Linear(widths[-1], 1))


def dcgan(widths: Sequence[int], bias: bool) -> nn.Module:
    """Strided 4x4 convolutions and leaky ReLU, no batch norm; logits `[N, 1, 1, 1]`."""
    layers: list[nn.Module] = []
    for before, width in zip((3, *widths[:-1]), widths, strict=True):
        layers += [nn.Conv2d(before, width, 4, 2, 1, bias=bias), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, 4, bias=bias))


@dataclass(frozen=True)
class Network:
    """A critic by name; `small` is for a round that only shows that everything runs."""

    kind: str
    small: bool = False

    @property
    def resolution(self) -> int:
        return 32 if self.kind == "r3gan" else 64

    @property
    def batch(self) -> int:
        return 2 if self.small else 16

    @property
    def seeds(self) -> int:
        """Weights and images that gradients are judged on."""
        return 3 if self.small else 5

    def build(self) -> nn.Module:
        part = 8 if self.small else 1
        if self.kind == "r3gan":
            return r3gan_shaped([w // part for w in (96, 192, 192, 192)], [g // min(part, 4) for g in (12, 24, 24, 24)])
        return dcgan([w // part for w in (64, 128, 256, 512)], bias=self.kind == "dcgan")

    def state(self, seed: int) -> dict[str, Tensor]:
        """The weights of a seed."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build().state_dict()

    def images(self, seed: int) -> tuple[Tensor, Tensor]:
        """Real and fake images, `[N, 3, H, W]`."""
        numbers = torch.Generator().manual_seed(1000 + seed)
        shape = (self.batch, 3, self.resolution, self.resolution)
        return torch.randn(shape, generator=numbers), torch.randn(shape, generator=numbers)


class Setting:
    """A critic with its images on a device, in a dtype and layout: what every contender of a case steps."""

    def __init__(self, network: Network, device: torch.device, dtype: torch.dtype, layout: torch.memory_format) -> None:
        self.network, self.device, self.dtype, self.layout = network, device, dtype, layout
        master = torch.float64 if dtype == torch.float64 else torch.float32
        self.critic = network.build().to(device, master).to(memory_format=layout)
        self.load(0)

    def load(self, seed: int) -> None:
        """The weights, in place, and the images of a seed."""
        self.critic.load_state_dict(self.network.state(seed))
        kind = next(self.critic.parameters()).dtype
        self.real, self.fake = (
            x.to(self.device, kind).contiguous(memory_format=self.layout) for x in self.network.images(seed)
        )

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == torch.bfloat16)

    def score(self, images: Tensor) -> Tensor:
        """Logits `[N]`, as a user of plain PyTorch has them: in float32 after a forward under autocast."""
        with self.autocast():
            logits: Tensor = self.critic(images).flatten()
        return logits.float() if self.dtype == torch.bfloat16 else logits

    def both(self) -> Tensor:
        return torch.cat([self.real, self.fake])

    def gradients(self, step: Step) -> list[Tensor]:
        """Of one step from cleared gradients, which it leaves cleared; zeros where a parameter has no influence."""
        step(self)
        found = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.critic.parameters()]
        self.critic.zero_grad(set_to_none=True)
        return found


# ---- the steps, as they are written


def _leaf(images: Tensor) -> Tensor:
    return images.detach().requires_grad_()


def _square(logits: Tensor, images: Tensor) -> Tensor:
    """|d logit_i / d image_i|^2, `[N]`."""
    (g,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return g.square().sum(dim=(1, 2, 3))


def combined_apart(s: Setting) -> None:
    """As R3GAN writes it."""
    real, fake = _leaf(s.real), _leaf(s.fake)
    real_logits, fake_logits = s.score(real), s.score(fake)
    r1, r2 = _square(real_logits, real), _square(fake_logits, fake)
    (F.softplus(fake_logits - real_logits) + 0.5 * r1 + 0.5 * r2).mean().backward()


def _combined(score: Score, images: Tensor) -> Tensor:
    logits = score(images)
    real_logits, fake_logits = logits.chunk(2)
    total = F.softplus(fake_logits - real_logits).mean() + 0.5 * 2 * _square(logits, images).mean()
    total.backward()
    return total


def combined_once(s: Setting) -> None:
    _combined(s.score, _leaf(s.both()))


def separate_apart(s: Setting) -> None:
    F.softplus(s.score(s.fake) - s.score(s.real)).mean().backward()
    for images in (_leaf(s.real), _leaf(s.fake)):
        (0.5 * _square(s.score(images), images).mean()).backward()


def separate_once(s: Setting) -> None:
    no_penalty_once(s)
    images = _leaf(s.both())
    (0.5 * 2 * _square(s.score(images), images).mean()).backward()


def no_penalty_apart(s: Setting) -> None:
    F.softplus(s.score(s.fake) - s.score(s.real)).mean().backward()


def no_penalty_once(s: Setting) -> None:
    real_logits, fake_logits = s.score(s.both()).chunk(2)
    F.softplus(fake_logits - real_logits).mean().backward()


def ours(plan: Any) -> Step:
    loss = losses.RelativisticLoss()

    def step(s: Setting) -> None:
        with s.autocast():
            penalties.critic_backward(s.critic, real=s.real, fake=s.fake, loss=loss, r1=1.0, r2=1.0, plan=plan)

    return step


def compiled_step() -> Step:
    def step(critic: nn.Module, images: Tensor) -> Tensor:
        return _combined(lambda x: critic(x).flatten(), images)

    compiled = penalties.compile_step(step, leaves=("images",), dynamic=False)
    return lambda s: compiled(s.critic, s.both())


def r1_phase(s: Setting) -> None:
    real = _leaf(s.real)
    (0.5 * _square(s.score(real), real).mean()).backward()


def r1_phase_lean(s: Setting) -> None:
    with penalties.fast_double_backward():
        r1_phase(s)


def _mixing_generator(s: Setting) -> torch.Generator:
    return torch.Generator(s.device).manual_seed(7)


def wgan_gp(s: Setting) -> None:
    shape = (len(s.real), 1, 1, 1)
    t = torch.rand(shape, generator=_mixing_generator(s), device=s.device).to(s.real.dtype)
    between = _leaf(t * s.fake + (1 - t) * s.real)
    logits = s.score(between)
    (g,) = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True)
    penalty = 10 * ((g.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    (s.score(s.fake).mean() - s.score(s.real).mean() + penalty).backward()


def wgan_gp_once(s: Setting) -> None:
    """The loss by one call on both."""
    shape = (len(s.real), 1, 1, 1)
    t = torch.rand(shape, generator=_mixing_generator(s), device=s.device).to(s.real.dtype)
    between = _leaf(t * s.fake + (1 - t) * s.real)
    logits = s.score(between)
    (g,) = torch.autograd.grad(logits, between, torch.ones_like(logits), create_graph=True)
    penalty = 10 * ((g.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
    real_logits, fake_logits = s.score(s.both()).chunk(2)
    (fake_logits.mean() - real_logits.mean() + penalty).backward()


def wgan_gp_ours(s: Setting) -> None:
    loss = losses.WassersteinLoss()
    real_logits, fake_logits = s.score(s.both()).chunk(2)
    value = loss.discriminator(real=real_logits, fake=fake_logits)
    (value + penalties.gradient_penalty(s.score, s.real, s.fake, generator=_mixing_generator(s))).backward()


# ---- judged against float64


@functools.lru_cache(maxsize=10)
def truth(network: Network, step: Step, seed: int) -> list[Tensor]:
    """The gradients of a plain step in float64, on the CPU."""
    wide = Setting(network, torch.device("cpu"), torch.float64, torch.contiguous_format)
    wide.load(seed)
    return wide.gradients(step)


def worst_error(gradients: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """The worst parameter's, as the module's docstring gives it; NaN counts as infinite."""
    whole = torch.stack([t.norm() for t in exact]).norm()
    errors = [
        (g.detach().to("cpu", torch.float64) - t).norm() / (t.norm() if t.norm() > 1e-6 * whole else whole)
        for g, t in zip(gradients, exact, strict=True)
    ]
    return float(torch.stack(errors).nan_to_num(nan=torch.inf).max())


def median_error(setting: Setting, step: Step, plain: Step) -> float:
    """Over the seeds, against `plain` in float64."""
    found = []
    for seed in range(setting.network.seeds):
        setting.load(seed)
        found.append(worst_error(setting.gradients(step), truth(setting.network, plain, seed)))
    setting.load(0)
    return statistics.median(found)


class Judge:
    """Holds contenders against the truth of `plain`, and against plain autograd's own error."""

    def __init__(self, name: str, setting: Setting, plain: Step) -> None:
        self.name, self.setting, self.plain = name, setting, plain

    @functools.cached_property
    def own(self) -> float:
        error = median_error(self.setting, self.plain, self.plain)
        ceiling = ERROR_CEILING[self.setting.dtype]
        if not error <= ceiling:
            raise WrongResult(f"{self.name}: plain autograd is off by {error:.3g}, allowed {ceiling:.3g}; not timed")
        return error

    def check(self, name: str, role: Role, step: Step) -> float:
        if step is self.plain:
            return self.own
        error = median_error(self.setting, step, self.plain)
        # another spelling of plain autograd differs from this one by rounding alone: it is allowed twice as much
        factor = ERROR_FACTOR[self.setting.dtype] * (1.0 if role in ("ours", "other") else 2.0)
        allowed = factor * self.own
        if not error <= allowed:
            raise WrongResult(
                f"{self.name}: gradients of {name} are off by {error:.3g}, allowed {allowed:.3g}, which is "
                f"{factor} times autograd's own error; not timed"
            )
        return error


# ---- the cases

# name -> (role, step, the step it must agree with)
Entry = tuple[Role, Step, Step]
STEPS: dict[str, Entry] = {
    "critic_backward, shared": ("ours", ours("shared"), combined_apart),
    "critic_backward, autograd": ("other", ours("autograd"), combined_apart),
    "combined, two calls": ("eager", combined_apart, combined_apart),
    "combined, one call": ("eager", combined_once, combined_apart),
    "phases, two calls": ("separate", separate_apart, combined_apart),
    "phases, one call": ("separate", separate_once, combined_apart),
    "no penalty, two calls": ("no penalty", no_penalty_apart, no_penalty_apart),
    "no penalty, one call": ("no penalty", no_penalty_once, no_penalty_apart),
}
COMPILED = "combined, torch.compile"
R1_PHASE: dict[str, Entry] = {
    "fast_double_backward": ("ours", r1_phase_lean, r1_phase),
    "eager": ("eager", r1_phase, r1_phase),
}
WGAN_GP: dict[str, Entry] = {
    "gradient_penalty": ("ours", wgan_gp_ours, wgan_gp),
    "eager, three calls": ("eager", wgan_gp, wgan_gp),
    "eager, two calls": ("eager", wgan_gp_once, wgan_gp),
}


def _case(
    job: str,
    network: Network,
    layout: str,
    entries: dict[str, Entry],
    targets: dict[Role, float],
    *,
    dtype: torch.dtype = torch.float32,
    compile_too: bool = False,
    memory_target: float | None = None,
    quick: bool = False,
) -> Case:
    name = f"{job}/{network.kind}/{layout}" + ("/bfloat16" if dtype == torch.bfloat16 else "")

    def build(device: torch.device) -> Prepared:
        setting = Setting(network, device, dtype, LAYOUTS[layout])
        found = dict(entries)
        if compile_too:
            found[COMPILED] = ("compiled", compiled_step(), combined_apart)
        judges = {plain: Judge(name, setting, plain) for _, _, plain in found.values()}
        contenders = tuple(
            Contender(
                title,
                role,
                functools.partial(setting.gradients, step),
                check=functools.partial(judges[plain].check, title, role, step),
                slow=role == "compiled",
            )
            for title, (role, step, plain) in found.items()
        )
        batch = setting.real if job == "critic_step/r1_phase" else setting.both()

        def forward() -> None:
            with torch.no_grad():
                setting.score(batch)

        return Prepared(contenders, (), one_pass=forward)

    return Case(
        name=name,
        group="critic step",
        size=2 * network.batch,
        traffic=0,
        contenders=(*entries, *([COMPILED] if compile_too else [])),
        build=build,
        targets=targets,
        memory_target=memory_target,
        least_rounds=15,
        quick=quick,
    )


def cases(*, small: bool = False) -> list[Case]:
    """Every critic and layout in float32, then bfloat16; the R1 phase of each; WGAN-GP."""
    found = []
    for kind in ("dcgan", "dcgan_no_bias", "r3gan"):
        network = Network(kind, small)
        for layout in LAYOUTS:
            targets: dict[Role, float] = {}
            if kind != "r3gan":
                targets = {"eager": 1.5 if layout == "nchw" else 1.8, "separate": 2.3}
                if layout == "channels_last":
                    targets["no penalty"] = 1 / 1.45
            elif layout == "channels_last":
                targets = {"eager": 2.0, "no penalty": 1 / 1.8}
            found.append(
                _case(
                    "critic_step/r1_r2",
                    network,
                    layout,
                    STEPS,
                    targets,
                    compile_too=kind != "r3gan" and not small,
                    memory_target=1.0,
                    quick=layout == "channels_last" and kind != "dcgan_no_bias",
                )
            )
        if kind != "dcgan_no_bias":
            found.append(_case("critic_step/r1_r2", network, "channels_last", STEPS, {}, dtype=torch.bfloat16))
    for kind in ("dcgan", "dcgan_no_bias", "r3gan"):
        for layout in LAYOUTS:
            found.append(
                _case(
                    "critic_step/r1_phase",
                    Network(kind, small),
                    layout,
                    R1_PHASE,
                    {"eager": 1.25},
                    quick=kind == "dcgan" and layout != "nchw",
                )
            )
    for layout in LAYOUTS:
        quick = layout == "channels_last"
        found.append(
            _case("critic_step/wgan_gp", Network("dcgan", small), layout, WGAN_GP, {"eager": 1.15}, quick=quick)
        )
    return found
