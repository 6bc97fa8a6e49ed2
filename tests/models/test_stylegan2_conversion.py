"""Network pickles to safetensors: the same images, nothing run, and every other pickle refused by name."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import struct
import warnings

import numpy as np
import pytest
import torch
from safetensors import safe_open

from gan_fast import models
from gan_fast.cli import main
from gan_fast.models import stylegan2
from gan_fast.models.stylegan2 import PickleError
from models import persistent_pickles

SETTINGS = {"resolution": 16, "latent_dim": 6, "w_dim": 8, "mapping_layers": 2, "channel_base": 64, "channel_max": 6}


def pair(**settings):
    generator, critic = models.build("stylegan2", seed=0, **{**SETTINGS, **settings})
    with torch.no_grad():
        generator.mapping.w_avg.fill_(0.1)
        generator.synthesis.b8.conv0.noise_strength.fill_(0.5)
    return generator, critic


def snapshot(generator, critic, mark, drop=()):
    """What a training run saves, augmentation pipe and data settings included."""
    pipe = torch.nn.Module()
    pipe.register_buffer("p", torch.zeros(()))
    pipe.rotation = np.float64(0.5)
    pipe.bands = np.arange(6, dtype=np.float32).reshape(2, 3)
    return {
        "training_set_kwargs": {"class_name": "training.dataset.ImageFolderDataset", "path": "data.zip"},
        "G": persistent_pickles.network(generator, mark, drop),
        "D": persistent_pickles.network(critic, mark, drop),
        "G_ema": persistent_pickles.network(generator, mark, drop),
        "augment_pipe": persistent_pickles.Persistent(pipe, mark, None),
        "stats": None,
    }


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("settings", [{}, {"classes": 3, "generator_architecture": "resnet", "conv_clamp": 256}])
def test_round_trip_gives_the_same_images(tmp_path, protocol, settings):
    generator, critic = pair(**settings)
    mark = tmp_path / "mark"
    source = tmp_path / "network.pkl"
    source.write_bytes(persistent_pickles.dumps(snapshot(generator, critic, str(mark)), protocol))
    assert main(["convert", str(source), str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "D.safetensors",
        "G.safetensors",
        "G_ema.safetensors",
    ]
    assert not mark.exists(), "source code in the pickle ran"
    loaded = stylegan2.load(tmp_path / "out")
    z = torch.randn(3, 6)
    c = torch.eye(3) if settings else None
    generator.eval()
    images = generator(z, c, truncation_psi=0.7, noise_mode="const")
    assert torch.equal(loaded["G_ema"](z, c, truncation_psi=0.7, noise_mode="const"), images)
    assert torch.equal(loaded["D"](images, c), critic(images, c))
    assert torch.equal(stylegan2.load_generator(tmp_path / "out").synthesis.b4.const, generator.synthesis.b4.const)
    with safe_open(tmp_path / "out" / "G_ema.safetensors", "pt") as file:
        kwargs = json.loads(file.metadata()["init_kwargs"])
    assert kwargs["img_resolution"] == 16 and kwargs["mapping_kwargs"]["num_layers"] == 2


def test_defaults_of_the_other_code_base_are_read_from_the_layers(tmp_path):
    generator, critic = pair(num_fp16_res=1, conv_clamp=256)
    generator.mapping.w_avg_beta = 0.998
    for network in (generator, critic):
        for key in ("num_fp16_res", "conv_clamp"):
            (network.init_kwargs.get("synthesis_kwargs") or network.init_kwargs).pop(key, None)
    source = tmp_path / "network.pkl"
    source.write_bytes(persistent_pickles.dumps(snapshot(generator, critic, "x", drop=("low_precision",)), 4))
    networks = stylegan2.read_networks(source)
    assert networks["G"].synthesis.b16.low_precision == "fp16" and networks["G"].synthesis.b8.low_precision is None
    assert networks["G"].synthesis.b8.conv1.conv_clamp == 256 and networks["G"].mapping.w_avg_beta == 0.998
    assert networks["D"].b16.low_precision == "fp16" and networks["D"].b8.conv0.conv_clamp == 256


def tensor_pickle(payload=None, size=(2,), stride=(1,), offset=0):
    """Opcodes of a tensor whose storage is `payload`, the bytes of a torch.save."""
    if payload is None:
        file = io.BytesIO()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # deprecated, and tensors are still pickled with it
            torch.save(torch.zeros(4).storage(), file, _use_new_zipfile_serialization=False)
        payload = file.getvalue()
    storage = b"ctorch.storage\n_load_from_bytes\n" + opcodes((payload,)) + b"R"
    rest = b"".join(opcodes(value) for value in (offset, size, stride, False, None))
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def opcodes(value):
    """What pushes a plain value: a pickle without its head and its stop."""
    return pickle.dumps(value, 2)[2:-1]


def network_pickle(tensor):
    """A pickle whose G_ema has one tensor of the given opcodes, `synthesis.b4.const`."""

    def module(parameters, modules):
        state = b"}(X\x0b\x00\x00\x00_parameters}(" + parameters + b"uX\x08\x00\x00\x00_modules}(" + modules + b"uu"
        head = b"ctorch_utils.persistence\n_reconstruct_persistent_obj\n}(X\x04\x00\x00\x00typeX\x05\x00\x00\x00class"
        return head + b"X\x0a\x00\x00\x00class_nameX\x09\x00\x00\x00GeneratorX\x05\x00\x00\x00state" + state + b"u\x85R"

    inner = module(b"X\x05\x00\x00\x00const" + tensor, b"")
    outer = module(b"", b"X\x09\x00\x00\x00synthesis" + module(b"", b"X\x02\x00\x00\x00b4" + inner))
    return b"\x80\x02}(X\x05\x00\x00\x00G_ema" + outer + b"u."


class Runs:
    """Pickled as a call of anything with anything."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def saved(value, zipped):
    file = io.BytesIO()
    torch.save(value, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


def text(value):
    return b"X" + struct.pack("<i", len(value)) + value.encode()


HOSTILE = {
    "system": (lambda mark: pickle.dumps({"G": Runs(os.system, f"touch {mark}")}), r"asks for (posix|nt)\.system"),
    "eval": (lambda mark: pickle.dumps({"G": Runs(eval, f"open({mark!r}, 'w')")}, 0), r"asks for \w+\.eval"),
    "nested in an allowed call": (
        lambda mark: pickle.dumps(Runs(torch.storage._load_from_bytes, Runs(os.system, f"touch {mark}"))),
        "system",
    ),
    "state of an allowed object": (
        lambda mark: b"ccollections\nOrderedDict\n)R}X\x0c\x00\x00\x00__setstate__cos\nsystem\nsb" + b".",
        "asks for os.system",
    ),
    "state set on a global": (
        lambda mark: b"ccollections\nOrderedDict\n}X\x01\x00\x00\x00aNsb.",
        "state set on a Global",
    ),
    "another name of an allowed module": (lambda mark: b"ctorch.storage\nos\n.", r"asks for torch\.storage\.os"),
    "a dotted name": (
        lambda mark: b"\x80\x04" + text("torch.storage") + text("_load_from_bytes.__globals__") + b"\x93.",
        "asks for torch.storage._load_from_bytes.__globals__",
    ),
    "a name out of the memo": (
        lambda mark: (
            b"\x80\x04" + text("os") + b"\x94" + text("system") + b"\x94h\x00h\x01\x93" + text("x") + b"\x85R."
        ),
        "asks for os.system",
    ),
    "a global in place of a name": (
        lambda mark: b"\x80\x04" + text("os") + b"ccollections\nOrderedDict\n\x93.",
        "a global whose name is not text",
    ),
    "a call of a call": (
        lambda mark: b"ccollections\nOrderedDict\n)R)R.",
        "a call of something that is not a named function",
    ),
    "INST": (lambda mark: b"(ios\nsystem\n.", "uses INST"),
    "OBJ": (lambda mark: b"(cos\nsystem\no.", "os.system"),
    "EXT1": (lambda mark: b"\x80\x02\x82\x01.", "uses EXT1"),
    "BINPERSID": (lambda mark: b"\x80\x02NQ.", "an object that is kept outside"),
    "PERSID": (lambda mark: b"Pstorage\n.", "uses PERSID"),
    "a call as a key": (lambda mark: b"}ccollections\nOrderedDict\n)RNs.", "a Call as a dictionary key"),
    "TensorFlow": (lambda mark: b"cdnnlib.tflib.network\nNetwork\n)\x81.", "is a TensorFlow network"),
    "a pickle as a storage": (
        lambda mark: network_pickle(tensor_pickle(pickle.dumps(Runs(os.system, f"touch {mark}")))),
        "the storage of synthesis.b4.const: ",
    ),
    "a hostile torch.save as a storage": (
        lambda mark: network_pickle(tensor_pickle(saved(Runs(os.system, f"touch {mark}"), zipped=False))),
        "the storage of synthesis.b4.const: ",
    ),
    "a hostile zipped torch.save as a storage": (
        lambda mark: network_pickle(tensor_pickle(saved(Runs(os.system, f"touch {mark}"), zipped=True))),
        "the storage of synthesis.b4.const: ",
    ),
    "a dictionary as a storage": (
        lambda mark: network_pickle(tensor_pickle(saved({}, zipped=False))),
        "no plain storage",
    ),
    "a tensor larger than its storage": (
        lambda mark: network_pickle(tensor_pickle(size=(2**40,), stride=(0,))),
        "claims 1099511627776 numbers and its storage has 4",
    ),
    "a tensor past its storage": (lambda mark: network_pickle(tensor_pickle(offset=3)), "reaches past its storage"),
    "negative strides": (lambda mark: network_pickle(tensor_pickle(stride=(-1,))), "sizes that are no sizes"),
    "an endless size": (lambda mark: b"\x80\x04\x8e" + b"\xff" * 7 + b"\x0fN.", "not a readable pickle"),
    "half a pickle": (lambda mark: pickle.dumps({"G": list(range(50))})[:-5], "not a readable pickle"),
    "no dictionary": (lambda mark: pickle.dumps([1, 2]), "holds a list"),
    "no network": (lambda mark: pickle.dumps({"weights": 1}), "its keys are weights"),
    "a plain value": (lambda mark: pickle.dumps({"G": 1}), "G is not in the persistence format"),
    "a zip": (lambda mark: saved({}, zipped=True), "is a zip archive"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_anything_else_is_refused_and_nothing_ran(tmp_path, monkeypatch, name):
    make, message = HOSTILE[name]
    mark, source = tmp_path / "mark", tmp_path / "network.pkl"
    source.write_bytes(make(str(mark)))
    monkeypatch.setattr(os, "system", lambda command: pytest.fail(f"ran {command}"))
    with pytest.raises(PickleError, match=message):
        stylegan2.convert(source, tmp_path / "out")
    assert not mark.exists() and not (tmp_path / "out").exists()


def test_modules_shared_over_and_over_do_not_take_for_ever(tmp_path):
    """50^7 modules from 7 of them: one in each place of the next."""
    shared = persistent_pickles.Persistent(torch.nn.Module(), "mark", None)
    for _ in range(7):
        outer = persistent_pickles.Persistent(torch.nn.Module(), "mark", None)
        outer.meta["state"]["_modules"] = {str(i): shared for i in range(50)}
        shared = outer
    shared.meta["class_name"] = "Generator"
    source = tmp_path / "network.pkl"
    source.write_bytes(persistent_pickles.dumps({"G": shared}, 4))
    with pytest.raises(PickleError, match="more modules"):
        stylegan2.convert(source, tmp_path / "out")


def test_the_canary_sings(tmp_path):
    """The hostile pickles are hostile: the ordinary loader runs them."""
    mark = tmp_path / "mark"
    pickle.loads(HOSTILE["system"][0](str(mark)))
    assert mark.exists()


def test_networks_of_another_family(tmp_path):
    generator, critic = pair()
    source = tmp_path / "network.pkl"
    data = snapshot(generator, critic, "x")
    data["G"].meta["class_name"] = "ProjectedDiscriminator"
    source.write_bytes(persistent_pickles.dumps(data, 4))
    with pytest.raises(PickleError, match="G is a ProjectedDiscriminator, expected"):
        stylegan2.read_networks(source)
    data = snapshot(generator, critic, "x")
    synthesis = data["G"].meta["state"]["_modules"]["synthesis"].meta["state"]["_modules"]
    del synthesis["b4"]
    source.write_bytes(persistent_pickles.dumps(data, 4))
    with pytest.raises(PickleError, match=r"of another family: it has no synthesis\.b4\.const"):
        stylegan2.read_networks(source)
    data = snapshot(generator, critic, "x")
    data["G"].meta["state"]["_init_kwargs"]["w_dim"] = 9
    source.write_bytes(persistent_pickles.dumps(data, 4))
    with pytest.raises(PickleError, match="G does not fit StyleGAN2's Generator"):
        stylegan2.read_networks(source)


def test_damaged_pickles_are_refused_or_read_and_never_crash(tmp_path):
    """150 files with a few bytes changed: a `PickleError`, or networks."""
    generator, _ = pair()
    content = persistent_pickles.dumps({"G": persistent_pickles.network(generator, "x")}, 2)
    source = tmp_path / "network.pkl"
    dice = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        for _ in range(dice.randint(1, 4)):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        source.write_bytes(damaged)
        try:
            stylegan2.read_networks(source)
        except PickleError:
            refused += 1
    assert refused > 30


def test_weights_files(tmp_path):
    generator, critic = pair()
    stylegan2.save(tmp_path / "D.safetensors", critic)
    with pytest.raises(stylegan2.WeightsError, match=r"neither G_ema\.safetensors nor G\.safetensors"):
        stylegan2.load_generator(tmp_path)
    with pytest.raises(stylegan2.WeightsError, match="holds a discriminator"):
        stylegan2.load_generator(tmp_path / "D.safetensors")
    stylegan2.save(tmp_path / "G.safetensors", generator)
    assert not list(tmp_path.glob(".partial*"))
    before = torch.get_rng_state()
    loaded = stylegan2.load_generator(tmp_path)
    assert torch.equal(torch.get_rng_state(), before) and not loaded.training
    assert all(
        torch.equal(a, b) for a, b in zip(loaded.state_dict().values(), generator.state_dict().values(), strict=True)
    )
    (tmp_path / "G.safetensors").write_bytes(b"\x00" * 20)
    with pytest.raises(stylegan2.WeightsError, match="not a readable safetensors file"):
        stylegan2.load_generator(tmp_path)
    with pytest.raises(stylegan2.WeightsError, match="holds none of"):
        stylegan2.load(tmp_path / "nowhere")


def test_the_command_fails_with_one_line(tmp_path, capsys):
    source = tmp_path / "network.pkl"
    source.write_bytes(pickle.dumps({"G": Runs(os.system, "true")}))
    assert main(["convert", str(source), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "system, which is no part of a StyleGAN2 network" in error
