"""What an artist turns: every command on a tiny untrained generator, and what its pictures must show."""

from __future__ import annotations

import builtins
import itertools
import sys
import types
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from gan_fast.cli import main
from gan_fast.editing import walk
from gan_fast.models import stylegan2
from gan_fast.training import Sampler
from gan_fast.training.control import Control

SIDE, LAYERS = 16, 6


def save_generator(path, classes=0):
    torch.manual_seed(3)
    generator, _ = stylegan2.build(
        SIDE, 3, latent_dim=8, w_dim=8, classes=classes, mapping_layers=2, channel_base=128, channel_max=8
    )
    generator.mapping.w_avg.normal_()
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.3)
    stylegan2.save(path, generator)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_generator(tmp_path_factory.mktemp("weights") / "G_ema.safetensors")


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    return save_generator(tmp_path_factory.mktemp("conditional") / "G_ema.safetensors", classes=3)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "dcgan"
    small = ["--batch=16", "--latent-dim=8", "--base-channels=8", "--threads=1", "--quiet", "--device=cpu"]
    assert main(["train", "--steps=1", "--evaluation-samples=0", f"--out={folder}", *small]) == 0
    return folder


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(path):
    """Pixels `[H, W, C]` as numbers."""
    with Image.open(path) as image:
        return (
            torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, -1).float()
        )


def frames(path):
    with Image.open(path) as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            pixels = image.convert("RGB")
            found.append(torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).view(*pixels.size, 3).float())
        return found


def tile(grid, row, column, columns, side=SIDE):
    """Picture (row, column) of a grid of so many columns, without its enlargement."""
    factor = grid.shape[1] // (columns * (side + 1) - 1)
    top, left = row * (side + 1), column * (side + 1)
    return grid[::factor, ::factor][top : top + side, left : left + side]


def same(a, b, levels=1.0):
    assert a.shape == b.shape and (a - b).abs().max() <= levels, (a - b).abs().max()


def generate(*arguments, out="out"):
    assert main(["generate", "--out", out, "--device=cpu", *map(str, arguments)]) == 0


def one(seed, *arguments):
    """The picture of one seed."""
    generate("--seeds", seed, *arguments, out="one")
    return read(f"one/seed{seed:06d}.png")


def test_generate_as_the_sampler_does(run, weights):
    """The same pictures through the new door: of a run, and of weights by the generator itself."""
    control, seeds = Control(run), [3, 1]
    torch.testing.assert_close(control.pictures(control.points(seeds)), Sampler(run).samples(seeds))
    generator = stylegan2.load_generator(weights)
    z = Control(None, weights).latents([5])
    expected = generator(z, noise_mode="const").clamp(-1, 1).add(1).mul(127.5).round()[0].permute(1, 2, 0)
    same(one(5, "--weights", weights), expected, 0)


def test_truncation(weights):
    """psi 0 is one picture for all seeds, 1 is the default, and a cutoff of all layers is no cutoff."""
    w = ("--weights", weights, "--noise", "none")
    generate("--seeds", 1, 2, "--truncation", 0, *w)
    same(read("out/seed000001.png"), read("out/seed000002.png"), 0)
    full, half = one(1, *w), one(1, "--truncation", 0.5, *w)
    same(one(1, "--truncation", 1, *w), full, 0)
    assert (full - half).abs().max() > 2
    same(one(1, "--truncation", 0.5, "--truncation-cutoff", LAYERS, *w), half, 0)
    same(one(1, "--truncation", 0.5, "--truncation-cutoff", 0, *w), full, 0)


def test_noise(weights):
    """Random noise belongs to the seed, whatever else is made beside it."""
    w = ("--weights", weights)
    const, random, none = (one(4, "--noise", mode, *w) for mode in ("const", "random", "none"))
    assert min((const - random).abs().max(), (const - none).abs().max(), (random - none).abs().max()) > 2
    generate("--seeds", 9, 4, "--noise", "random", *w)
    same(read("out/seed000004.png"), random)


def test_classes(conditional):
    w = ("--weights", conditional)
    assert (one(1, "--classes", 0, *w) - one(1, "--classes", 2, *w)).abs().max() > 2
    same(one(4, "--classes", 1, *w), one(4, *w), 0)
    generate("--seeds", 1, 4, "--classes", 2, 0, *w)
    same(read("out/seed000001.png"), one(1, "--classes", 2, *w))


def test_style_mix(weights):
    """Row's own picture where no layer is the column's, column's own where all are; both stand beside the table."""
    w = ("--weights", weights)
    own = [one(seed, *w) for seed in (0, 1, 7, 9)]
    for layers, owner in (("0-5", lambda row, column: 2 + column), ("0-2", None)):
        generate("--style-mix", "0-1", "7,9", layers, *w)
        grid = read("out/style_mix.png")
        for i in range(2):
            same(tile(grid, 1 + i, 0, 3), own[i])
            same(tile(grid, 0, 1 + i, 3), own[2 + i])
            for j in range(2):
                if owner is not None:
                    same(tile(grid, 1 + i, 1 + j, 3), own[owner(i, j)])
    generator = stylegan2.load_generator(weights)
    ws = generator.mapping(Control(None, weights).latents([1, 7]))
    mixed = torch.cat([ws[1:, :3], ws[:1, 3:]], 1)  # coarse styles of the column, fine ones of the row
    expected = generator.synthesis(mixed, noise_mode="const").clamp(-1, 1).add(1).mul(127.5).round()
    same(tile(grid, 2, 1, 3), expected[0].permute(1, 2, 0))


@pytest.mark.parametrize("space", ["w", "z"])
@pytest.mark.parametrize("kind", ["linear", "spherical"])
def test_interpolate_meets_its_seeds(weights, space, kind):
    w = ("--weights", str(weights), "--device=cpu")
    walk = ["interpolate", "--seeds", "3", "8", "--frames", "4", "--space", space, "--kind", kind, *w]
    assert main([*walk, "--out", "walk.png"]) == 0
    grid = read("walk.png")  # 5 frames, three in a row
    same(tile(grid, 0, 0, 3), one(3, *w[:2]))
    same(tile(grid, 1, 1, 3), one(8, *w[:2]))
    assert (tile(grid, 0, 2, 3) - tile(grid, 0, 0, 3)).abs().max() > 2

    assert main([*walk, "--loop", "--out", "loop.png"]) == 0
    loop = read("loop.png")  # 8 frames: there and back the same way
    for there, back in ((1, 7), (2, 6), (3, 5)):
        same(tile(loop, *divmod(there, 3), 3), tile(loop, *divmod(back, 3), 3))


def test_interpolate_gif(weights):
    """Frames, pace and endless repetition are in the file."""
    w = ("--weights", str(weights), "--device=cpu")
    assert main(["interpolate", "--seeds", "1", "2", "5", "--frames=5", "--fps=20", "--out=w.gif", *w]) == 0
    with Image.open("w.gif") as image:
        assert image.n_frames == 11 and image.info["duration"] == 50 and image.info["loop"] == 0
        assert image.size == (256, 256)
    found = frames("w.gif")
    for number, seed in ((0, 1), (5, 2), (10, 5)):
        # a GIF has 256 colours
        assert (found[number][::16, ::16] - one(seed, *w[:2])).abs().mean() < 8
    steps = torch.stack([(a - b).abs().mean() for a, b in itertools.pairwise(found)])
    assert steps.max() < 5 * steps.min(), "an even pace"


def test_interpolate_without_styles(run):
    """Latents of a dcgan are walked on the arc by default; every seed is met."""
    assert main(["interpolate", f"--run={run}", "--seeds", "1", "2", "--frames=4", "--out=w.png", "--device=cpu"]) == 0
    grid = read("w.png")
    same(tile(grid, 0, 0, 3, 8), one(1, "--run", run))
    same(tile(grid, 1, 1, 3, 8), one(2, "--run", run))
    control = Control(run)
    (a, b), middle = control.latents([1, 2]), walk(control.latents([1, 2]), 2, "spherical")[1]
    assert min(a.norm(), b.norm()) * 0.9 < middle.norm(), "the straight line's middle is shorter"


def test_mp4_needs_its_extra(run, capsys, monkeypatch):
    real = builtins.__import__

    def without_imageio(name, *args, **kwargs):
        if name.startswith("imageio"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_imageio)
    assert main(["interpolate", f"--run={run}", "--frames=2", "--out=w.mp4"]) == 1
    error = capsys.readouterr().err
    assert "pip install 'gan-fast[video]'" in error and error.count("\n") == 1


def test_mp4_gets_every_frame(run, monkeypatch):
    """imageio's side of the call, recorded: even sizes, three channels, one file at the end."""

    class Writer:
        def __init__(self, path, **options):
            self.path, self.options, self.frames = path, options, []

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.path.write_bytes(b"film")

        def append_data(self, frame):
            self.frames.append(frame)

    made = []
    imageio = types.ModuleType("imageio")
    imageio.v2 = types.ModuleType("imageio.v2")
    imageio.v2.get_writer = lambda path, **options: made.append(Writer(path, **options)) or made[-1]
    for module in (imageio, imageio.v2, types.ModuleType("imageio_ffmpeg")):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["interpolate", f"--run={run}", "--frames=3", "--fps=30", "--out=a/w.mp4"]) == 0
    (film,) = made
    assert film.options["fps"] == 30 and [f.shape for f in film.frames] == [(256, 256, 3)] * 4
    assert [p.name for p in film.path.parent.iterdir()] == ["w.mp4"]


def test_edit(weights):
    """Strength 0 is the original, both ends move, and only the named layers do."""
    w = ("--weights", str(weights), "--device=cpu")
    assert main(["edit", "--seeds", "3", "6", "--directions", "0", "2", "--steps=3", "--strength=4", *w]) == 0
    grid = read("edited/edit.png")
    for row, seed in enumerate((3, 3, 6, 6)):
        same(tile(grid, row, 1, 3), one(seed, *w[:2]))
        assert (tile(grid, row, 0, 3) - tile(grid, row, 2, 3)).abs().max() > 2
    same(tile(grid, 2, 2, 3), read("edited/seed000006_direction000_+004.00.png"))
    assert len(list(Path("edited").glob("seed*"))) == 12
    last = str(LAYERS - 1)  # of toRGB: shapes stay
    assert main(["edit", "--seeds=3", "--layers", last, "--steps=3", "--out=last", *w]) == 0
    assert (tile(read("last/edit.png"), 0, 2, 3) - tile(grid, 0, 2, 3)).abs().max() > 2


def test_project_and_edit_what_was_found(weights, capsys):
    w = ("--weights", str(weights), "--device=cpu")
    generate("--seeds", 3, *w[:2])
    assert main(["project", "out/seed000003.png", "--steps=60", *w]) == 0
    out = capsys.readouterr().out
    distances = [float(line.split("distance ")[1]) for line in out.splitlines() if line.startswith("step")]
    assert len(distances) >= 10 and distances[-1] < distances[0] / 2, out
    grid = read("projected/projection.png")
    same(tile(grid, 0, 0, 2), read("out/seed000003.png"), 0)
    before = (tile(grid, 0, 0, 2) - tile(grid, 0, 1, 2)).square().mean()
    assert before < (tile(grid, 0, 0, 2) - one(8, *w[:2])).square().mean() / 2
    assert load_file("projected/w.safetensors")["ws"].shape == (1, LAYERS, 8)
    assert main(["edit", "--styles=projected/w.safetensors", "--steps=3", *w]) == 0
    same(tile(read("edited/edit.png"), 0, 1, 3), tile(grid, 0, 1, 2))


def test_refusals_are_one_line(run, weights, conditional, capsys):
    style, plain, labelled = f"--weights={weights}", f"--run={run}", f"--weights={conditional}"
    cases = [
        (["generate", plain, style], 2, "not both"),
        (["generate", plain, "--truncation=0.5"], 1, "truncation needs a style space"),
        (["generate", plain, "--noise=none"], 1, "noise none needs a style space"),
        (["generate", plain, "--classes=1"], 1, "without classes"),
        (["generate", plain, "--style-mix", "0", "1", "0"], 1, "--style-mix needs a style space"),
        (["generate", style, "--style-mix", "0", "1", "0-9"], 1, "layers must be among 0 to 5"),
        (["generate", style, "--style-mix", "0", "one", "0"], 2, "a list of numbers looks like 0-3,7"),
        (["generate", style, "--truncation-cutoff=7"], 1, "cutoff must be from 0 to the generator's 6"),
        (["generate", labelled, "--classes=3"], 1, "0 to 2, got [3]"),
        (["generate", labelled, "--count=4", "--classes", "0", "1"], 1, "one for each of the 4 seeds"),
        (["generate", "--weights=nowhere.safetensors"], 1, "nowhere.safetensors is not a file"),
        (["interpolate", style, "--seeds=1"], 2, "seeds must be 2 or more"),
        (["interpolate", style, "--out=a.webm"], 2, "must end in .png, .gif or .mp4"),
        (["interpolate", style, "--noise=random"], 2, "flicker"),
        (["interpolate", plain, "--space=w"], 1, "--space w needs a style space"),
        (["edit", plain], 1, "edit needs a style space"),
        (["edit", style, "--steps=4"], 2, "odd number"),
        (["edit", style, "--directions=8"], 1, "directions 0 to 7, got 8"),
        (["edit", style, f"--styles={weights}"], 1, "holds no styles"),
        (["project", "nowhere.png", style], 1, "nowhere.png is not a file"),
        (["project", str(weights), style], 1, "cannot be used: not an image"),
        (["project", str(weights), plain], 1, "project needs a style space"),
    ]
    for arguments, code, message in cases:
        assert main([*arguments, "--device=cpu"]) == code, arguments
        error = capsys.readouterr().err
        assert message in error and error.count("\n") == 1, (arguments, error)
