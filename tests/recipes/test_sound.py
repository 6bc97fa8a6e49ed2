"""wavegan and hifigan: they resume bit for bit, refuse what makes no sense, work from the command line, and learn."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from gan_fast import losses, recipes
from gan_fast.cli import main
from gan_fast.data import load_sounds
from gan_fast.metrics import evaluate_sounds, evaluate_vocoder, sounds
from gan_fast.models import build
from gan_fast.sound import MelSpectrogram, decode_wav, mel_l1, speak
from gan_fast.sound.mel import hearing
from gan_fast.training import Trainer, checkpoint
from sound.clips import folder, wav_bytes
from support.reading_back import NothingReadBack

RATE, LENGTH = 8000, 1024
CLIPS = {"rate": RATE, "length": LENGTH, "batch": 8, "device": "cpu", "threads": 1, "quiet": True}
WAVEGAN = {**CLIPS, "base_channels": 4, "latent_dim": 8, "critic_steps": 2}
HIFIGAN = {**CLIPS, "fft": 256, "mels": 24, "high": 4000.0, "generator_channels": 16, "strides": (8, 8)}
HIFIGAN |= {"kernels": (3,), "dilations": (1,), "critic_channels": 1, "periods": (2, 3), "scales": 2}
SPECTROGRAM = {**WAVEGAN, "critic": "spectrogram", "mels": 16, "width": 16}
CASES = {"wavegan": WAVEGAN, "wavegan of spectrograms": SPECTROGRAM, "hifigan": HIFIGAN}


# The Wasserstein loss does not depend on the critic's last bias.
LAST_BIASES = {"wavegan": "D.last.bias", "wavegan of spectrograms": "D.layers.4.bias"}


def case(name, **settings):
    return recipes.get(name.split()[0], **{**CASES[name], **settings})


@pytest.fixture(autouse=True)
def threads_as_before():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def beeps(tmp_path_factory):
    return folder(tmp_path_factory.mktemp("sounds") / "beeps", RATE, LENGTH)


def everything(trainer):
    networks = {"G": trainer.generator, "D": trainer.critic, "ema": trainer.ema.module}
    found = {f"{name}.{k}": v.clone() for name, module in networks.items() for k, v in module.state_dict().items()}
    for name, optimizer in zip(("G", "D"), trainer.optimizers, strict=True):
        found |= {f"optimiser {name}.{k}": v.clone() for k, v in checkpoint.optimizer_tensors(optimizer).items()}
    streams = {"latents": trainer.latents.stream, **trainer.adversarial_step.streams}
    return found | {name: stream.get_state() for name, stream in streams.items()}


def train(trainer, steps):
    for _ in range(steps):
        stats = trainer.step(trainer.feed.next())
    return stats


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", CASES)
def test_resume_is_bit_for_bit(beeps, tmp_path, name, precision):
    recipe = case(name, data=str(beeps), precision=precision)
    straight, first = Trainer(recipe), Trainer(recipe)
    train(straight, 4)
    train(first, 2)
    first.recipe.preview(first.ema.module, first.data, first.feed.shape)  # to be looked at: it must not move the run
    first.save(tmp_path / "half")
    torch.manual_seed(99)  # nothing may depend on torch's global generator
    second = Trainer.resume(tmp_path / "half")
    stats = train(second, 2)
    a, b = everything(straight), everything(second)
    assert a.keys() == b.keys() and [k for k in a if not torch.equal(a[k], b[k])] == []
    assert all(value.isfinite().all() for value in a.values() if value.is_floating_point())
    assert stats.critic.loss.isfinite() and stats.generator_loss.isfinite()
    start = everything(Trainer(recipe))
    still = {k for k in start if torch.equal(start[k], a[k]) and k.startswith(("G.", "D.", "ema."))}
    # The last: the spectral norm's vector of one output.
    assert not {k for k in still if k != LAST_BIASES.get(name) and not k.endswith(("._u", "._v"))}


def test_wavegans_critic_step_is_its_formula(beeps):
    """The gradient of -D(x) + D(G(z)) + 10 (|grad D(y)| - 1)^2 with three calls' shifts, each drawn in turn."""
    recipe = recipes.get("wavegan", data=str(beeps), precision="fp32", **{**WAVEGAN, "shuffle": 1})
    trainer = Trainer(recipe)
    step, real = trainer.adversarial_step, trainer.feed.next()
    fake = trainer.generator(torch.randn(8, 8)).detach()
    streams = {name: stream.get_state() for name, stream in step.streams.items()}
    step._critic_gradients(real, fake)
    got = [p.grad.clone() for p in trainer.critic.parameters()]
    trainer.critic.zero_grad()
    for name, state in streams.items():
        step.streams[name].set_state(state)
    of_real, of_fake, of_between = (step._shifts(8) for _ in range(3))
    assert {int(v) for v in torch.cat([of_real, of_fake, of_between]).unique()} == {-1, 0, 1}
    critic = trainer.critic
    t = torch.rand(8, 1, 1, generator=step.streams["interpolation"])
    y = (real + t * (fake - real)).requires_grad_()
    (slope,) = torch.autograd.grad(critic(y, of_between).sum(), y, create_graph=True)
    loss = critic(fake, of_fake).mean() - critic(real, of_real).mean()
    (loss + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()).backward()
    for own, p in zip(got, critic.parameters(), strict=True):
        torch.testing.assert_close(own, p.grad, rtol=1e-4, atol=1e-5)


def test_wavegan_with_the_relativistic_loss_and_r1_and_r2_is_its_formula(beeps):
    """softplus(D(G(z)) - D(x)) + |grad D(x)|^2 + 3/2 |grad D(G(z))|^2, a pair of sounds under the same shifts."""
    other = {"shuffle": 1, "loss": "relativistic", "gp_weight": 0.0, "r1": 2.0, "r2": 3.0, "critic_steps": 1}
    trainer = Trainer(recipes.get("wavegan", data=str(beeps), precision="fp32", **{**WAVEGAN, **other}))
    step, real, critic = trainer.adversarial_step, trainer.feed.next(), trainer.critic
    fake = trainer.generator(torch.randn(8, 8)).detach()
    before = step.streams["shuffle"].get_state()
    step._critic_gradients(real, fake)
    got = [p.grad.clone() for p in critic.parameters()]
    critic.zero_grad()
    step.streams["shuffle"].set_state(before)
    shifts = step._shifts(8)
    x, y = real.clone().requires_grad_(), fake.clone().requires_grad_()
    of_real, of_fake = critic(x, shifts), critic(y, shifts)
    loss = torch.nn.functional.softplus(of_fake - of_real).mean()
    for weight, logits, clips in ((2.0, of_real, x), (3.0, of_fake, y)):
        (slope,) = torch.autograd.grad(logits.sum(), clips, create_graph=True)
        loss = loss + weight / 2 * slope.square().flatten(1).sum(1).mean()
    loss.backward()
    for own, p in zip(got, critic.parameters(), strict=True):
        expected = torch.zeros_like(p) if p.grad is None else p.grad
        torch.testing.assert_close(own, expected, rtol=1e-4, atol=1e-5)
    assert "interpolation" not in step.streams


def test_a_critic_of_spectrograms_takes_its_penalty_between_levels(beeps):
    """The gradient of -D(x) + D(y) + 10 (|grad D(u)| - 1)^2, u between the levels x of real and y of made sounds."""
    trainer = Trainer(case("wavegan of spectrograms", data=str(beeps), precision="fp32"))
    step, real, critic = trainer.adversarial_step, trainer.feed.next(), trainer.critic
    latents, between = trainer.latents.stream.get_state(), step.streams["interpolation"].get_state()
    step._update_critic = lambda stats: None
    stats = step.train_critic(real)
    got = [p.grad.clone() for p in critic.parameters()]
    critic.zero_grad()
    trainer.latents.stream.set_state(latents)
    step.streams["interpolation"].set_state(between)
    with torch.no_grad():
        x, y = critic.levels(real), critic.levels(trainer.generator(trainer.latents.draw(8)))
    t = torch.rand(8, 1, 1, generator=step.streams["interpolation"])
    u = (x + t * (y - x)).requires_grad_()
    (slope,) = torch.autograd.grad(critic(u).sum(), u, create_graph=True)
    loss = critic(y).mean() - critic(x).mean()
    torch.testing.assert_close(stats.loss, loss.detach(), rtol=1e-4, atol=1e-5)
    (loss + 10 * (slope.flatten(1).norm(dim=1) - 1).square().mean()).backward()
    for own, p in zip(got, critic.parameters(), strict=True):
        torch.testing.assert_close(own, p.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["wavegan", "wavegan of spectrograms"])
def test_a_step_of_wavegan_reads_nothing_back(beeps, name):
    trainer = Trainer(case(name, data=str(beeps), precision="fp32"))
    batches = [trainer.feed.next() for _ in range(2)]
    with NothingReadBack():
        for batch in batches:
            trainer.step(batch)


def test_a_waveform_critics_networks_are_named_as_before_there_was_another():
    """So that runs go on which were saved before."""
    names = {"length", "rate", "latent_dim", "base_channels", "shuffle"}
    assert recipes.get("wavegan", data="x").networks((1, 8192))[1].keys() == names


def test_hifigans_losses_are_their_formulas(beeps):
    """A step at rates so small that the generator's loss is that of the weights before: the sum of its three terms."""
    recipe = recipes.get("hifigan", data=str(beeps), precision="fp32", **HIFIGAN, lr=1e-12, weight_decay=0.0)
    trainer = Trainer(recipe)
    generator, critic, real = trainer.generator, trainer.critic, trainer.feed.next()
    train(trainer, 6)  # the spectral norm's vectors settle
    with torch.no_grad():
        fake = generator(generator.mel(real))
        (of_real, real_features), (of_fake, fake_features) = critic(real), critic(fake)
        critic_loss = sum((r - 1).square().mean() + f.square().mean() for r, f in zip(of_real, of_fake, strict=True))
        matching = sum((r - f).abs().mean() for r, f in zip(real_features, fake_features, strict=True))
        adversarial = sum((f - 1).square().mean() for f in of_fake)
        expected = adversarial + 2 * matching + 45 * mel_l1(generator.mel, real, fake)
    stats = trainer.step(real)
    torch.testing.assert_close(2 * stats.critic.loss, critic_loss, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(stats.generator_loss, expected, rtol=1e-3, atol=1e-4)
    assert isinstance(recipe.loss_function(), losses.LeastSquaresLoss)


def test_hifigans_learning_rate_falls_by_the_clips_seen(beeps):
    trainer = Trainer(recipes.get("hifigan", data=str(beeps), **HIFIGAN, lr_decay=0.5, decay_kimg=0.016))
    train(trainer, 5)  # the fifth step begins after 32 clips
    assert [g["lr"] for o in trainer.optimizers for g in o.param_groups] == [2e-4 / 4] * 2


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("wavegan", {}, "trains on a folder of wav files: name it with --data"),
        ("wavegan", {"data": "x", "flip": True}, "flip mirrors images"),
        ("wavegan", {"data": "x", "resolution": 32}, "resolution is for images"),
        ("wavegan", {"data": "x", "updates": "simultaneous", "critic_steps": 1}, "alternating updates only"),
        ("wavegan", {"data": "beeps", "length": 1000}, "such as 8192 and 16384, got length 1000"),
        ("wavegan", {"data": "beeps", "shuffle": 32}, "the phase shuffle must be below 32"),
        ("wavegan", {"data": "beeps", "critic": "mel"}, "critic must be"),
        ("wavegan", {"data": "beeps", "critic": "spectrogram", "length": 1008, "rate": RATE}, "a multiple of 64"),
        ("wavegan", {"data": "beeps", "critic": "spectrogram", "length": 128}, "samples above 192, got length 128"),
        ("wavegan", {"data": "x", "width": 0}, "width must be"),
        ("wavegan", {"data": "x", "beta2": 1.0}, r"beta2 must be in \[0, 1\)"),
        ("hifigan", {"data": "x", "length": 1000}, "length must be a multiple of the strides' product, 256"),
        ("hifigan", {"data": "x", "lr_decay": 1.1}, "lr_decay must be at most 1"),
        ("hifigan", {"data": "beeps", "rate": 8000}, "half the rate"),
        ("hifigan", {"data": "beeps", "generator_channels": 12}, "multiple of 8, got 12"),
    ],
)
def test_refusals(beeps, name, settings, message):
    settings = {k: str(beeps) if v == "beeps" else v for k, v in settings.items()}
    with pytest.raises(ValueError, match=message):
        Trainer(recipes.get(name, **settings))


def test_other_samples_are_refused(beeps):
    with pytest.raises(ValueError, match=r"trains on sounds \[1, T\] and the data given has samples \[1, 8, 8\]"):
        Trainer(recipes.get("wavegan", **WAVEGAN), data=torch.utils.data.TensorDataset(torch.zeros(9, 1, 8, 8)))
    with pytest.raises(ValueError, match="clips of length 1024 but the data given has 512"):
        Trainer(recipes.get("wavegan", **WAVEGAN), data=load_sounds(beeps, length=512, rate=RATE))
    clips = torch.utils.data.TensorDataset(0.1 * torch.randn(16, 1, LENGTH))
    train(Trainer(recipes.get("wavegan", **WAVEGAN), data=clips), 2)


def flags(settings):
    argv = []
    for name, value in settings.items():
        if value is True:
            argv.append("--" + name.replace("_", "-"))
        else:
            argv += ["--" + name.replace("_", "-"), *map(str, value if isinstance(value, tuple) else (value,))]
    return argv


def test_command_line_of_wavegan(beeps, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    # What the classifier is worth is tested below.
    monkeypatch.setattr(sounds, "_LEAST_STEPS", 2)
    monkeypatch.setattr(sounds, "_EPOCHS", 2)
    train_it = ["train", "--recipe", "wavegan", "--data", str(beeps), "--out", "run", *flags(WAVEGAN)]
    assert main([*train_it, "--steps", "3", "--evaluation-samples", "20"]) == 0
    out = capsys.readouterr().out
    assert "beeps (24 sounds of 1x1024)" in out and "20 samples against beeps" in out and "recognised" in out
    assert json.loads((tmp_path / "run" / "quality.json").read_text())["samples"] == 20
    assert (tmp_path / "run" / "samples.png").read_bytes().startswith(b"\x89PNG")
    samples, rate = decode_wav((tmp_path / "run" / "samples" / "0.wav").read_bytes())
    assert (len(samples), rate) == (LENGTH, RATE)
    assert main(["resume", "run", "--steps", "4", "--quiet"]) == 0
    assert main(["generate", "--run", "run", "--count", "3", "--seed", "5", "--out", "made"]) == 0
    names = [f"seed{n:06d}.wav" for n in (5, 6, 7)]
    assert sorted(p.name for p in (tmp_path / "made").iterdir()) == [*names, "spectrograms.png"]
    capsys.readouterr()
    assert main(["vocode", "--run", "run", "--data", str(beeps)]) == 1
    assert "holds no vocoder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["train", "--recipe", "wavegan", "--resolution", "8", "--data", str(beeps)])
    assert "resolution is for images" in capsys.readouterr().err


def test_command_line_of_hifigan(beeps, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    train_it = ["train", "--recipe", "hifigan", "--data", str(beeps), "--out", "run", *flags(HIFIGAN)]
    assert main([*train_it, "--steps", "3", "--evaluation-samples", "4"]) == 0
    out = capsys.readouterr().out
    assert "4 held-out sounds of beeps" in out and "Griffin-Lim (60 iterations)" in out and "real time" in out
    assert {"0.wav", "0-real.wav"} <= {p.name for p in (tmp_path / "run" / "samples").iterdir()}
    assert main(["resume", "run", "--steps", "4", "--quiet"]) == 0
    assert main(["evaluate", "--run", "run", "--count", "2"]) == 0
    speech = tmp_path / "speech"
    (speech / "deep").mkdir(parents=True)
    (speech / "deep" / "a.wav").write_bytes(wav_bytes(b"\0\x20\0\x40" * 3000, 1, 16, rate=16_000))
    (speech / "b.wav").write_bytes(wav_bytes(b"\0\x20\0\x40" * 50, 1, 16, rate=RATE))
    capsys.readouterr()
    assert main(["vocode", "--run", "run", "--data", "speech", "--out", "back", "--griffin-lim"]) == 0
    assert "2 files, 0.4 seconds of sound" in capsys.readouterr().out
    lengths = {
        p.relative_to("back").as_posix(): len(decode_wav(p.read_bytes())[0]) for p in Path("back").rglob("*.wav")
    }
    assert lengths == {"deep/a.wav": 3000, "deep/a-griffin-lim.wav": 3000, "b.wav": 100, "b-griffin-lim.wav": 100}
    assert main(["generate", "--run", "run"]) == 1
    assert "holds a vocoder" in capsys.readouterr().err
    assert main(["vocode", "--run", "run", "--data", "speech", "--out", "speech"]) == 2


def test_a_short_training_of_hifigan_halves_the_mel_error(beeps):
    settings = {**HIFIGAN, "generator_channels": 32, "lr": 2e-3, "ema_kimg": 0.05}
    trainer = Trainer(recipes.get("hifigan", data=str(beeps), precision="fp32", **settings))
    untrained, _ = build(trainer.model, seed=0, **trainer.model_config)
    train(trainer, 60)
    report = evaluate_vocoder(trainer.ema.module, untrained, trainer.data, count=8)
    assert report.mel_l1 < 0.5 * report.untrained_mel_l1
    assert report.griffin_lim_mel_l1 < report.untrained_mel_l1
    assert report.real_time_factor > 0 and report.seconds == pytest.approx(1.0, abs=0.1)


WORKER = """
import sys
from gan_fast import recipes
from gan_fast.training import Trainer
trainer = Trainer(recipes.get(sys.argv[2], **eval(sys.argv[3])), out=sys.argv[1])
assert trainer.world.size == 2
assert trainer.fit().step == trainer.recipe.steps
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one(beeps, tmp_path, name):
    """The distance between both ends is less than 1e-4 of the way they went. Crops, latents, shifts and the penalty's
    places are those of the whole batch."""
    recipe = case(name, data=str(beeps), precision="fp32", steps=6, log_steps=2)
    start = Trainer(recipe)
    begin = {"generator": start.generator.state_dict(), "critic": start.critic.state_dict()}
    Trainer(recipe, out=tmp_path / "one").fit()
    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    settings = {k: v for k, v in recipe.to_dict().items() if k != "out"}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [*torchrun, str(script), str(tmp_path / "two"), recipe.name, repr(settings)]
    subprocess.run(command, env=environment, check=True, timeout=600)
    one, two = (checkpoint.load(checkpoint.latest(tmp_path / end)) for end in ("one", "two"))
    assert all(
        torch.equal(value, two.tensors["random"][key])
        for key, value in one.tensors["random"].items()
        if key != "generator_loss"
    )
    for network in ("generator", "critic"):
        first, second, origin = one.tensors[network], two.tensors[network], begin[network]
        # Such a bias's gradient is rounding, which Adam scales, and so is that of a unit that is on for every sample.
        idle = {LAST_BIASES.get(name), "D.layers.2.bias" if "spectrograms" in name else None}
        names = [k for k in origin if network != "critic" or f"D.{k}" not in idle]
        gone = sum((first[k] - origin[k]).double().square().sum() for k in names)
        apart = sum((first[k] - second[k]).double().square().sum() for k in names)
        assert apart.sqrt() < 1e-4 * gone.sqrt(), f"{network}: {float(apart.sqrt() / gone.sqrt())}"


spoken = pytest.mark.skipif(
    shutil.which("espeak-ng") is None, reason="espeak-ng is not installed (apt install espeak-ng)"
)


@spoken
def test_espeak_speaks_digits_into_classes(tmp_path, capsys):
    few = ["--rate", "8000", "--voices", "en-us", "--pitches", "40", "--speeds", "230", "270"]
    assert speak.main(["digits", str(tmp_path / "digits"), *few]) == 0
    assert "20 clips at 8000 Hz" in capsys.readouterr().out
    data = load_sounds(tmp_path / "digits", length=4096, rate=8000)
    assert sorted(data.classes) == sorted(speak.DIGITS) and len(data) == 10 == len(data.held_out)
    lengths = data.starts.diff()
    assert lengths.min() > 800 and lengths.max() < 4096 and data.audio.abs().max() > 0.85 * 32768
    with pytest.raises(SystemExit):
        speak.main(["digits", str(tmp_path / "digits")])


@pytest.mark.slow
@spoken
def test_spoken_digits_are_told_apart_and_nothing_else_is_recognised(tmp_path):
    several = ["--rate", "8000", "--voices", "en-gb", "en-us", "--pitches", "40", "60", "--speeds", "230", "270"]
    assert speak.main(["digits", str(tmp_path / "digits"), *several]) == 0
    data = load_sounds(tmp_path / "digits", length=4096, rate=8000)
    real = data.float_batch(torch.arange(len(data)))
    report = evaluate_sounds(real, data)
    assert report.accuracy >= 0.9 and report.recognised >= 0.8 and report.random_phases <= 0.1
    assert report.evenness > 0.95
    generator, _ = build("wavegan", seed=0, length=4096, rate=8000, base_channels=4)
    with torch.no_grad():
        assert evaluate_sounds(generator(torch.randn(50, 100)), data).recognised <= 0.1


@pytest.mark.slow
def test_a_classifier_of_beeps_recognises_beeps_and_no_random_phases(beeps):
    """The twin of the two above that needs no speech."""
    data = load_sounds(beeps, length=LENGTH, rate=RATE)
    real = data.held_out.float_batch(torch.arange(len(data.held_out)))
    report = evaluate_sounds(real, data)
    assert report.accuracy == 1.0 and report.recognised >= 0.9 and report.evenness > 0.95


def test_without_espeak_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert speak.main(["sentences", str(tmp_path / "none")]) == 1
    assert "apt install espeak-ng" in capsys.readouterr().err


def test_a_short_training_of_wavegan_brings_the_spectrum_near(beeps):
    """Mean difference of log energies by band, samples to real clips: measured 1.7, untrained 6.6, the bound is 2.6.

    Broken versions, same measure: frozen generator 6.6, frozen critic 3.8, sign of the generator's loss flipped 3.4,
    real and fake exchanged in the critic's loss 4.3.
    """
    settings = {**WAVEGAN, "batch": 16, "base_channels": 8, "lr_g": 1e-3, "lr_d": 1e-3, "beta1": 0.0, "ema_kimg": 0.5}
    trainer = Trainer(recipes.get("wavegan", data=str(beeps), precision="fp32", **settings))
    mel = MelSpectrogram(hearing(RATE, bands=32))

    def bands(audio):
        return mel(audio).exp().square().mean((0, 2)).clamp_min(1e-8).log()

    real = bands(trainer.data.float_batch(torch.arange(len(trainer.data))))
    start = float((bands(trainer.sample(64)) - real).abs().mean())
    train(trainer, 120)
    assert float((bands(trainer.sample(64)) - real).abs().mean()) < 0.4 * start


def test_a_short_training_with_a_critic_of_spectrograms_is_recognised(beeps):
    """As rising or falling chirps: 89, 88 and 91 % measured with seeds 0 to 2; with a waveform critic none yet.

    Broken versions, none of which is recognised: frozen generator, frozen critic, sign of the generator's loss flipped,
    levels averaged over time or over frequency, no gradient through the levels.
    """
    settings = {"batch": 16, "base_channels": 8, "mels": 24, "width": 64, "loss": "relativistic", "critic_steps": 1}
    settings |= {"gp_weight": 0.0, "r1": 1.0, "r2": 1.0, "lr_g": 2e-3, "lr_d": 2e-3, "beta1": 0.0, "beta2": 0.99}
    trainer = Trainer(case("wavegan of spectrograms", data=str(beeps), precision="fp32", ema_kimg=0.5, **settings))
    train(trainer, 150)
    report = evaluate_sounds(trainer.sample(256), trainer.data)
    assert report.recognised >= 0.5 and report.evenness >= 0.8
