"""Exported generators give what they were exported from, in a process that has no gan_fast."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from gan_fast import exporting, models
from gan_fast.cli import main
from gan_fast.models import stylegan2
from gan_fast.training import Sampler

NETWORKS = {
    "wgan_gp": ("mlp", {"shape": [2], "latent_dim": 4, "width": 8, "depth": 2}, 4),
    "dcgan": ("dcgan", {"resolution": 8, "channels": 1, "latent_dim": 8, "base_channels": 8, "extra_layers": 1}, 8),
    "r3gan": (
        "r3gan",
        {"resolution": 8, "latent_dim": 8, "base_channels": 8, "max_channels": 8, "blocks": 1},
        8,
    ),
    "stylegan2": (
        "stylegan2",
        {"resolution": 8, "latent_dim": 8, "w_dim": 8, "classes": 3, "mapping_layers": 1, "channel_base": 64}
        | {"num_fp16_res": 1, "low_precision": "bf16", "conv_clamp": 256},
        8,
    ),
}
NETWORKS |= {
    "cgan": (
        "cgan",
        {"network": "dcgan", "conditioning": "projection", "classes": 3, "resolution": 8, "channels": 1}
        | {"latent_dim": 8, "base_channels": 8, "extra_layers": 1},
        8,
    ),
    "ddgan": (
        "ddgan",
        {"shape": [1, 8, 8], "steps": 2, "latent_dim": 4, "base_channels": 8, "max_channels": 8, "style_dim": 8}
        | {"critic": {"resolution": 8, "channels": 1, "base_channels": 8}},
        2 * (64 + 4),
    ),
    "wavegan": ("wavegan", {"length": 1024, "rate": 8000, "latent_dim": 8, "base_channels": 4, "shuffle": 2}, 8),
}
# The step that most readers of such a file cannot see: a quarter of one grey level.
BOUND = 2e-5

STRANGER = """
import sys
sys.modules["gan_fast"] = None
import torch
from safetensors.torch import load_file, save_file
found = {}
for name in sys.argv[2:]:
    run = torch.export.load(f"{sys.argv[1]}/{name}.pt2").module()
    for batch in (1, 2, 5):
        inputs = load_file(f"{sys.argv[1]}/{name}-{batch}.safetensors")
        found[f"{name}-{batch}"] = run(**inputs).clone()
save_file(found, f"{sys.argv[1]}/found.safetensors")
assert sys.modules["gan_fast"] is None and not any(name.startswith("gan_fast.") for name in sys.modules)
"""

ONNX_STRANGER = """
import sys
sys.modules["gan_fast"] = sys.modules["torch"] = None
import onnxruntime
from safetensors.numpy import load_file, save_file
found = {}
for name in sys.argv[2:]:
    session = onnxruntime.InferenceSession(f"{sys.argv[1]}/{name}.onnx")
    for batch in (1, 2, 5):
        inputs = load_file(f"{sys.argv[1]}/{name}-{batch}.safetensors")
        found[f"{name}-{batch}"] = session.run(None, inputs)[0]
save_file(found, f"{sys.argv[1]}/found-onnx.safetensors")
"""


@torch.no_grad()
def control(name):
    """What `Control` would be of a run: random weights, statistics, mean style and noise strengths that matter."""
    kind, config, latent_size = NETWORKS[name]
    generator, _ = models.build(kind, seed=0, **config)
    stream = torch.Generator().manual_seed(1)
    for key, value in generator.state_dict().items():
        if key.endswith(
            ("running_mean", "running_var", "w_avg", "noise_strength", "bias", "bias.weight", "project.weight")
        ):
            value.copy_(torch.rand(value.shape, generator=stream) / 2 + 0.1)
        elif kind in ("dcgan", "cgan") and value.ndim == 4:
            value.mul_(5)  # its first weights are so small that all pictures are alike
        elif key.endswith(("to_image.weight", "torgb.weight")):
            value.mul_(0.1)  # of the others few pixels would be inside [-1, 1]
    classes = config.get("classes", 0)
    generator.requires_grad_(False).eval()
    return SimpleNamespace(
        generator=generator, latent_size=latent_size, classes=classes, device=torch.device("cpu"), source=name
    )


@torch.no_grad()
def eager(made, inputs):
    """The generator's own answer: by gan_fast's kernels, in the words of each network."""
    if not isinstance(made.generator, stylegan2.Generator):
        samples = made.generator(*inputs.values())
        return samples.clamp(-1, 1) if samples.ndim == 4 else samples
    psi = float(inputs["truncation"])
    noise = {"noise_mode": "const", "force_fp32": True}
    return made.generator(inputs["latents"], inputs["classes"], truncation_psi=psi, **noise).clamp(-1, 1)


def questions(made, batch, psi):
    stream = torch.Generator().manual_seed(100 + batch)
    inputs = {"latents": torch.randn(batch, made.latent_size, generator=stream)}
    if made.classes:
        inputs["classes"] = torch.rand(batch, made.classes, generator=stream)
    if isinstance(made.generator, stylegan2.Generator):
        inputs["truncation"] = torch.tensor(psi)
    return inputs


def ask(tmp_path, suffix, script, found):
    """The largest distance of a stranger's answers from the generators', over networks and batch sizes."""
    expected = {}
    for name in NETWORKS:
        made = control(name)
        (exported,) = exporting.export(made, [tmp_path / f"{name}{suffix}"])
        assert exported.difference < BOUND and exported.path.is_file()
        for batch, psi in ((1, 1.0), (2, 0.7), (5, 0.0)):
            inputs = questions(made, batch, psi)
            save_file(inputs, tmp_path / f"{name}-{batch}.safetensors")
            expected[f"{name}-{batch}"] = eager(made, inputs)
    subprocess.run([sys.executable, "-c", script, str(tmp_path), *NETWORKS], check=True, timeout=300, cwd=tmp_path)
    answers = load_file(tmp_path / found)
    assert answers.keys() == expected.keys()
    for key, value in expected.items():
        assert answers[key].shape == value.shape
        assert value.std() > 0.02 and (value.abs() < 1).float().mean() > 0.8, f"{key}: nothing to compare"
        torch.testing.assert_close(answers[key], value, atol=BOUND, rtol=0, msg=lambda m, key=key: f"{key}: {m}")


@pytest.mark.slow
def test_pt2_runs_where_there_is_no_gan_fast(tmp_path):
    ask(tmp_path, ".pt2", STRANGER, "found.safetensors")
    extra = {"gan_fast.json": ""}
    torch.export.load(tmp_path / "stylegan2.pt2", extra_files=extra)
    about = json.loads(extra["gan_fast.json"])
    assert about["inputs"] == {"latents": "[N, 8]", "classes": "[N, 3]", "truncation": "[]"}


@pytest.mark.slow
def test_onnx_runs_where_there_is_no_torch(tmp_path):
    for package in ("onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gan-fast[export]'")
    ask(tmp_path, ".onnx", ONNX_STRANGER, "found-onnx.safetensors")


def test_what_differs_is_not_written(tmp_path, monkeypatch):
    """A reference that forgets its activation's gain, sqrt(2), is caught by the check, and an old file stays."""
    path = tmp_path / "g.pt2"
    path.write_bytes(b"old")
    right = exporting.KERNELS["bias_act"]
    wrong = {**exporting.KERNELS, "bias_act": lambda *args: right(*args[:7], 1.0, *args[8:])}
    monkeypatch.setattr(exporting, "KERNELS", wrong)
    with pytest.raises(exporting.ExportError, match=r"would differ from its generator by .*: nothing was written"):
        exporting.export(control("stylegan2"), [path])
    assert path.read_bytes() == b"old" and [p.name for p in tmp_path.iterdir()] == ["g.pt2"]
    monkeypatch.setattr(exporting, "KERNELS", {})
    with pytest.raises(exporting.ExportError, match=r"no plain PyTorch stands for gan_fast\.upfirdn2d"):
        exporting.export(control("r3gan"), [path])


def test_export_a_run(tmp_path, monkeypatch, capsys):
    from gan_fast import recipes
    from gan_fast.training import Trainer

    monkeypatch.chdir(tmp_path)
    small = {"batch": 16, "latent_dim": 8, "base_channels": 8, "threads": 1, "quiet": True, "device": "cpu", "steps": 1}
    Trainer(recipes.get("dcgan", **small), out="runs/0001-x").fit()
    capsys.readouterr()
    assert main(["export", "--out", "made/g.pt2"]) == 0
    out = capsys.readouterr().out
    assert "latents [N, 8] -> images [N, 1, 8, 8]" in out and "largest difference from the generator" in out
    sampler = Sampler(tmp_path / "runs" / "0001-x")
    stream = torch.Generator()
    latents = torch.stack([torch.randn(8, generator=stream.manual_seed(s)) for s in range(7)])
    images = torch.export.load("made/g.pt2").module()(latents=latents)
    torch.testing.assert_close(images, sampler.samples(range(7)), atol=BOUND, rtol=0)
    assert main(["export", "--out", "g.jit"]) == 1 and "must end in .pt2 or .onnx" in capsys.readouterr().err
    if importlib.util.find_spec("onnxruntime") is None:
        assert main(["export", "--out", "g.onnx"]) == 1
        assert "pip install 'gan-fast[export]'" in capsys.readouterr().err


STRANGERS_TO_RUNS = {
    "pt2": """
import sys
sys.modules["gan_fast"] = None
import torch
from safetensors.torch import load_file, save_file
found = {}
for path in sys.argv[1:]:
    run = torch.export.load(f"{path}.pt2").module()
    for name, inputs in load_file(f"{path}.safetensors").items():
        found[name] = run(**{name.split()[1]: inputs}).clone()
save_file(found, "found.safetensors")
""",
    "onnx": """
import sys
sys.modules["gan_fast"] = sys.modules["torch"] = None
import onnxruntime
from safetensors.numpy import load_file, save_file
found = {}
for path in sys.argv[1:]:
    session = onnxruntime.InferenceSession(f"{path}.onnx")
    for name, inputs in load_file(f"{path}.safetensors").items():
        (found[name],) = session.run(None, {name.split()[1]: inputs})
save_file(found, "found.safetensors")
""",
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRANGERS_TO_RUNS)
@torch.no_grad()
def test_translators_and_vocoders(tmp_path, monkeypatch, capsys, kind):
    """Both directions of a cyclegan, a pix2pix and a hifigan, of sizes other than those they were trained and traced
    with."""
    from gan_fast import data, recipes
    from gan_fast.training import Trainer
    from gan_fast.training.translation import Translator
    from gan_fast.training.vocoding import Vocoder
    from sound.clips import folder

    for package in ("onnx", "onnxruntime", "onnxscript") if kind == "onnx" else ():
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'gan-fast[export]'")
    monkeypatch.chdir(tmp_path)
    small = {"batch": 4, "threads": 1, "quiet": True, "device": "cpu", "steps": 1}
    patches = {**small, "base_channels": 4, "critic_channels": 4}
    sounds = {**small, "data": str(folder(tmp_path / "beeps", 8000, 1024)), "rate": 8000, "length": 1024}
    sounds |= {"fft": 256, "mels": 24, "high": 4000.0, "generator_channels": 16, "strides": (8, 8)}
    sounds |= {"kernels": (3,), "dilations": (1,), "critic_channels": 1, "periods": (2, 3), "scales": 2}
    with torch.enable_grad():
        for name in ("cyclegan", "pix2pix"):
            pairs = data.load_pairs("digits-to-colour", aligned=name == "pix2pix")
            own = {"blocks": 1} if name == "cyclegan" else {}
            Trainer(recipes.get(name, **patches, **own), data=pairs, out=name).fit()
        Trainer(recipes.get("hifigan", **sounds), out="hifigan").fit()
    capsys.readouterr()
    files = {"there": ("cyclegan", "AtoB"), "back": ("cyclegan", "BtoA"), "only": ("pix2pix", None)}
    expected = {}
    for file, (run, direction) in files.items():
        chosen = ["--direction", direction] if direction else []
        assert main(["export", "--run", run, "--out", f"{file}.{kind}", *chosen]) == 0
        translator = Translator(tmp_path / run)
        stream = torch.Generator().manual_seed(3)
        images = torch.rand(2, 3, 5 * translator.multiple, 7 * translator.multiple, generator=stream) * 2 - 1
        save_file({f"{file} images": images}, tmp_path / f"{file}.safetensors")
        expected[f"{file} images"] = translator.translate(images, direction or "AtoB")
    assert "images [N, 3, H, W] -> translated [N, 3, H, W]" in capsys.readouterr().out
    assert main(["export", "--run", "hifigan", "--out", f"voice.{kind}"]) == 0
    assert "log_mels [N, 24, F] -> sounds [N, 1, 64 F]" in capsys.readouterr().out
    mels = torch.randn(2, 24, 19, generator=torch.Generator().manual_seed(4)) - 4
    save_file({"voice log_mels": mels}, tmp_path / "voice.safetensors")
    expected["voice log_mels"] = Vocoder(tmp_path / "hifigan").generator(mels)
    for arguments, message in (
        (["--run", "cyclegan"], "translates both ways: choose --direction"),
        (["--run", "pix2pix", "--direction", "BtoA"], "translates AtoB only, not BtoA"),
        (["--run", "hifigan", "--direction", "AtoB"], "leave --direction out"),
    ):
        assert main(["export", "--out", "no.pt2", *arguments]) == 1 and message in capsys.readouterr().err
    subprocess.run([sys.executable, "-c", STRANGERS_TO_RUNS[kind], *files, "voice"], check=True, timeout=300)
    answers = load_file(tmp_path / "found.safetensors")
    assert answers.keys() == expected.keys()
    for name, value in expected.items():
        assert value.std() > 1e-4, f"{name}: nothing to compare"
        torch.testing.assert_close(answers[name], value, atol=BOUND, rtol=0, msg=lambda m, name=name: f"{name}: {m}")
