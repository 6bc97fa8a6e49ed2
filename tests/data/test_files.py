"""Folders, zips and packed files of images of every kind, good and bad."""

import io
import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from gan_fast.data import DataError, inspect, load, pack

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def picture(size: tuple[int, int] = (40, 32), mode: str = "RGB", seed: int = 0):
    """Noise of coarse blocks."""
    coarse = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.NEAREST).convert(mode)


def plain(colour, size=(16, 16), mode="RGB"):
    return Image.new(mode, size, colour)


def save_many(folder: Path, count: int, size: tuple[int, int] = (16, 16)) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        picture(size, seed=zlib.crc32(f"{folder.name}{i}".encode())).save(folder / f"{i:04d}.png")


def pixel(dataset, index: int = 0) -> list[int]:
    image = dataset.images[index]
    assert (image == image[:, :1, :1]).all(), "expected a plain image"
    return image[:, 0, 0].tolist()


@pytest.mark.parametrize(
    ("image", "suffix", "expected"),
    [
        (plain((10, 20, 30)), "png", [10, 20, 30]),
        (plain(77, mode="L"), "png", [77, 77, 77]),
        (plain(1, mode="1"), "png", [255, 255, 255]),
        (plain((255, 0, 0, 0), mode="RGBA"), "png", [255, 255, 255]),
        (plain((0, 0, 0, 128), mode="RGBA"), "png", [127, 127, 127]),
        (plain((0, 255), mode="LA"), "png", [0, 0, 0]),
        (plain((200, 100, 0)).quantize(4), "png", [200, 100, 0]),
        (Image.fromarray(np.full((16, 16), 257 * 90, np.uint16)), "png", [90, 90, 90]),
        (plain((0, 0, 0, 0), mode="CMYK"), "tiff", [255, 255, 255]),
    ],
    ids=["RGB", "L", "1", "transparent", "half transparent", "LA", "P", "16-bit", "CMYK"],
)
def test_every_mode_becomes_rgb(tmp_path, image, suffix, expected):
    for i in range(2):
        image.save(tmp_path / f"{i}.{suffix}")
    assert pixel(load(tmp_path, resolution=8, channels=3)) == expected


def test_a_palette_with_transparency_is_laid_on_white(tmp_path):
    image = plain((0, 0, 0)).quantize(2)
    image.info["transparency"] = 0
    image.save(tmp_path / "a.png", transparency=0)
    assert pixel(load(tmp_path, resolution=8, channels=3)) == [255, 255, 255]


def test_exif_orientation_is_applied_and_the_centre_kept(tmp_path):
    wide = Image.new("RGB", (64, 32), "black")
    wide.paste((255, 255, 255), (32, 0, 64, 32))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter clockwise for display: white ends below
    wide.save(tmp_path / "a.jpg", exif=exif, quality=95)
    image = load(tmp_path, resolution=32, channels=1).images[0, 0].float()
    assert image[:14].mean() < 10
    assert image[18:].mean() > 245


def test_resizing_does_not_alias(tmp_path):
    stripes = np.zeros((128, 128), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    image = load(tmp_path, resolution=16).images.float()
    assert (image - 127.5).abs().max() < 8


def test_channels_and_resolution_follow_the_files(tmp_path):
    for i in range(3):
        picture((100, 70), "L", i).save(tmp_path / f"{i}.png")
    dataset = load(tmp_path)
    assert tuple(dataset.images.shape) == (3, 1, 64, 64)
    assert load(tmp_path, channels=3).channels == 3


def damaged_folder(root: Path) -> Path:
    save_many(root, 4)
    (root / "notes.txt").write_text("not a picture")
    whole = (root / "0000.png").read_bytes()
    (root / "cut.png").write_bytes(whole[: len(whole) // 2])
    (root / "empty.jpg").write_bytes(b"")
    plain(0, (3, 3), "L").save(root / "tiny.png")
    Image.fromarray(np.zeros((16, 16), np.float32)).save(root / "float.tiff")
    (root / ".hidden.png").write_bytes(whole)
    os.mkfifo(root / "pipe.png")
    return root


def test_what_cannot_be_used_is_counted_with_the_reason(tmp_path):
    dataset = load(damaged_folder(tmp_path), resolution=16)
    assert len(dataset) == 4
    assert dataset.skipped == {
        "not a regular file": ["pipe.png"],
        "damaged image": ["cut.png"],
        "not an image": ["empty.jpg", "notes.txt"],
        "floating-point image: its range is not known, save it with 8 or 16 bits": ["float.tiff"],
        "shorter side below 8 pixels": ["tiny.png"],
    }


def test_inspect_reports_and_says_why_not(tmp_path):
    root = damaged_folder(tmp_path / "some")
    (root / "copy.png").write_bytes((root / "0001.png").read_bytes())
    report = inspect(root, resolution=16)
    assert (report.usable, report.duplicates, report.can_train) == (5, 1, True)
    assert sum(map(len, report.skipped.values())) == 6
    assert any("skipped 2: not an image (empty.jpg, notes.txt)" in line for line in report.lines())
    lonely = tmp_path / "lonely"
    save_many(lonely, 1)
    report = inspect(lonely)
    assert not report.can_train
    assert "1 usable training images at 16 pixels, at least 2 are needed" in report.lines()[-1]


def test_nothing_usable_is_one_clear_error(tmp_path):
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(DataError, match=r"no image can be read.*1 not an image \(such as a.txt\)"):
        load(tmp_path)
    save_many(tmp_path, 2)
    with pytest.raises(DataError, match=r"can be used at 64 pixels.*2 shorter side below 32 pixels"):
        load(tmp_path, resolution=64)


def test_a_bomb_is_refused_unopened(tmp_path):
    save_many(tmp_path, 2)
    Image.new("1", (12000, 12000)).save(tmp_path / "bomb.png")
    dataset = load(tmp_path, resolution=8)
    assert dataset.skipped == {"more than 89 million pixels": ["bomb.png"]}


@pytest.mark.parametrize(
    ("names", "classes", "labels"),
    [
        (["a.png", "b.png"], (), None),
        (["cat/1.png", "dog/2.png"], ("cat", "dog"), [0, 1]),
        (["cat/1.png", "2.png"], (), None),
        (["root/dog/1.png", "root/cat/x/2.png"], ("cat", "dog"), [1, 0]),
        (["root/1.png", "root/2.png"], (), None),
        (["train/a/1.png", "val/b/2.png"], ("a", "b"), [0, 1]),
        (["train/1.png", "test/2.png"], (), None),
    ],
)
def test_folders_become_classes(names, classes, labels):
    from gan_fast.data.files import organise

    found = organise(names)
    assert found[:2] == (classes, labels)
    assert found[2] == ([False, True] if names[0].startswith("train") else None)


def test_a_folder_split_is_fixed_stratified_and_disjoint(tmp_path):
    save_many(tmp_path / "few", 100, (8, 8))
    save_many(tmp_path / "many", 420, (8, 8))
    train = load(tmp_path, resolution=8)
    test = load(tmp_path, resolution=8, split="test")
    assert train.held_out is not None
    assert train.held_out.fingerprint == test.fingerprint
    assert test.labels.bincount().tolist() == [10, 42]
    assert len(train) + len(test) == len(load(tmp_path, resolution=8, split="all")) == 520
    assert train.classes == ("few", "many")
    limited = load(tmp_path, resolution=8, limit=30)
    assert len(limited) == 30
    assert limited.fingerprint == load(tmp_path, resolution=8, limit=30).fingerprint


def make_zip(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def png(seed: int) -> bytes:
    buffer = io.BytesIO()
    picture((16, 16), seed=seed).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_zip_is_read_in_place_and_cannot_reach_out(tmp_path):
    path = make_zip(
        tmp_path / "set.zip",
        {"r/a/1.png": png(1), "r/b/2.png": png(2), "../evil.png": png(3), "/abs.png": png(4), "__MACOSX/x.png": png(5)},
    )
    before = sorted(tmp_path.rglob("*"))
    dataset = load(path)
    assert (len(dataset), dataset.classes, dataset.name) == (2, ("a", "b"), "set")
    assert dataset.skipped == {"name leads out of the zip": ["../evil.png", "/abs.png"]}
    assert sorted(tmp_path.rglob("*")) == before


def test_a_damaged_member_is_skipped_and_a_damaged_zip_named(tmp_path):
    path = make_zip(tmp_path / "a.zip", {"1.png": png(1), "2.png": png(2), "3.png": png(3)})
    raw = bytearray(path.read_bytes())
    start = raw.find(b"IDAT")
    raw[start + 8 : start + 16] = b"\0" * 8
    path.write_bytes(raw)
    assert sum(map(len, load(path).skipped.values())) == 1
    path.write_bytes(raw[:200])
    with pytest.raises(DataError, match=r"a\.zip is neither a zip of images nor"):
        load(path)


def test_packing_keeps_everything_and_maps_it(tmp_path):
    save_many(tmp_path / "in" / "a", 300, (16, 16))
    save_many(tmp_path / "in" / "b", 300, (16, 16))
    (tmp_path / "in" / "a" / "bad.png").write_bytes(b"bad")
    out = tmp_path / "deep" / "pack.safetensors"
    packed = pack(tmp_path / "in", out)
    direct, mapped = load(tmp_path / "in"), load(out)
    assert direct.held_out is not None
    assert mapped.held_out is not None
    assert (packed.train, packed.held_out) == (len(direct), len(direct.held_out))
    assert packed.skipped == {"not an image": ["a/bad.png"]}
    assert mapped.fingerprint == direct.fingerprint
    assert mapped.held_out.fingerprint == direct.held_out.fingerprint
    assert list(out.parent.iterdir()) == [out]
    assert inspect(out).classes == {"a": 300, "b": 300}
    assert len(load(out, limit=7)) == 7
    repacked = pack(out, tmp_path / "again.safetensors")
    assert (repacked.train, repacked.held_out) == (packed.train, packed.held_out)
    with pytest.raises(DataError, match="packed with resolution 16, not 32"):
        load(out, resolution=32)


def test_a_truncated_or_foreign_packed_file_is_named(tmp_path):
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(3)}, tmp_path / "w.safetensors")
    with pytest.raises(DataError, match=r"w\.safetensors is a safetensors file but holds no packed images"):
        load(tmp_path / "w.safetensors")
    out = tmp_path / "digits.safetensors"
    pack("digits", out)
    assert load(out).fingerprint == load("digits").fingerprint
    out.write_bytes(out.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"digits\.safetensors is truncated or damaged"):
        load(out)


def test_a_failed_pack_leaves_nothing(tmp_path):
    save_many(tmp_path / "in", 1)
    with pytest.raises(DataError, match="1 usable images at 16 pixels; at least 2"):
        pack(tmp_path / "in", tmp_path / "out" / "x.safetensors")
    assert list((tmp_path / "out").iterdir()) == []


def test_missing_data_says_what_was_looked_for(tmp_path):
    with pytest.raises(DataError, match=r"no such file or folder \(looked at .*nowhere\).*digits, fashion-mnist"):
        load(tmp_path / "nowhere")
    (tmp_path / "a.bin").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match="neither a zip of images nor a file packed"):
        load(tmp_path / "a.bin")
