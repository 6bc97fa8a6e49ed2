"""Pairs: where A and B are found, sizes that are not square, what is aligned, what is held out, refusals."""

from __future__ import annotations

import zipfile

import pytest
import torch
from PIL import Image

from gan_fast.data import DataError, load, load_pairs
from gan_fast.data.pairs import INK, PAPER


def picture(path, colour, size=(24, 12), right=None):
    """`size` is (width, height), as Pillow has it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, colour)
    if right is not None:
        image.paste(right, (size[0] // 2, 0, *size))
    image.save(path)


RED, BLUE = (200, 0, 0), (0, 0, 200)


def test_digits_to_colour_has_other_digits_on_each_side_and_a_known_answer():
    pairs = load_pairs("digits-to-colour")
    assert (len(pairs.a), len(pairs.b), pairs.shape, pairs.aligned) == (719, 719, (6, 8, 8), False)
    paper, ink = (torch.tensor(c).float().view(3, 1, 1) for c in (PAPER, INK))

    def answer(grey):
        v = grey[:, :1].float() / 255
        return ((1 - v) * paper + v * ink).round().byte()

    a, b = ({tuple(x.flatten().tolist()) for x in images} for images in (answer(pairs.a.images), pairs.b.images))
    assert not a & b, "no digit is on both sides"
    test = pairs.held_out
    assert test.aligned and torch.equal(answer(test.a.images), test.b.images)
    both = load_pairs("digits-to-colour", aligned=True)
    assert len(both) == 1438 and torch.equal(answer(both.a.images), both.b.images)
    assert len({pairs.fingerprint, both.fingerprint, test.fingerprint}) == 3
    assert load_pairs("digits-to-colour", height=16, width=16).shape == (6, 16, 16)


def test_train_and_test_folders_and_zips(tmp_path):
    for i in range(3):
        picture(tmp_path / "d" / "trainA" / f"{i}.png", RED)
        picture(tmp_path / "d" / "testA" / f"{i}.png", RED)
    for i in range(4):
        picture(tmp_path / "d" / "trainB" / f"x{i}.jpg", BLUE)
        picture(tmp_path / "d" / "testB" / f"x{i}.jpg", BLUE)
    with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
        for path in sorted((tmp_path / "d").rglob("*.*")):
            archive.write(path, path.relative_to(tmp_path))
    for where in ("d", "d.zip"):
        pairs = load_pairs(str(tmp_path / where))
        assert (len(pairs.a), len(pairs.b), len(pairs), pairs.shape) == (3, 4, 4, (6, 12, 24))
        assert (len(pairs.held_out.a), len(pairs.held_out.b)) == (3, 4)
        assert pairs.a.images[0, :, 0, 0].tolist() == list(RED) and pairs.b.images[0, 2, 0, 0] > 190
    pairs = load_pairs(str(tmp_path / "d" / "trainA"), str(tmp_path / "d" / "trainB"), height=8, width=16)
    assert pairs.shape == (6, 8, 16) and pairs.held_out is None and pairs.name == "trainA-trainB"


def test_aligned_pictures_lie_side_by_side_or_have_equal_names(tmp_path):
    for i in range(3):
        picture(tmp_path / "beside" / "train" / f"{i}.png", (10 * i, 0, 0), (32, 12), right=(0, 0, 10 * i))
        picture(tmp_path / "beside" / "val" / f"{i}.png", RED, (32, 12), right=BLUE)
        picture(tmp_path / "named" / "A" / f"{i}.png", (10 * i, 0, 0))
        picture(tmp_path / "named" / "B" / f"{i}.bmp", (0, 0, 10 * i))
    picture(tmp_path / "named" / "B" / "alone.png", BLUE)
    for where, shape in (("beside", (6, 12, 16)), ("named", (6, 12, 24))):
        pairs = load_pairs(str(tmp_path / where), aligned=True)
        assert pairs.aligned and pairs.shape == shape and len(pairs) == 3
        assert torch.equal(pairs.a.images[:, 0], pairs.b.images[:, 2]) and pairs.a.images[2, 0, 0, 0] == 20
    assert pairs.b.skipped == {"no partner of the same name": ["alone.png"]}
    held_out = load_pairs(str(tmp_path / "beside"), aligned=True).held_out
    assert held_out.a.images[0, :, 0, -1].tolist() == list(RED)
    assert held_out.b.images[0, :, 0, 0].tolist() == list(BLUE), "halves do not run into each other"


def test_built_in_names_serve_each_side():
    pairs = load_pairs("digits", "stacked-digits")
    assert pairs.shape == (6, 8, 8) and torch.equal(pairs.a.images[:, 0], load("digits").images[:, 0])
    assert len(pairs) == 50_000


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        (["nowhere"], {}, "nowhere: there is no such file or folder"),
        (["digits"], {}, "digits is one kind of picture: give the other as --data-b"),
        (["digits", "stacked-digits"], {"aligned": True}, "has no partner for each picture"),
        (["digits-to-colour"], {"channels": 1}, "has colours"),
        (["digits-to-colour"], {"height": 8, "width": 16}, "is square; got height 8 and width 16"),
        (["digits-to-colour"], {"height": 8}, "give height and width, or neither"),
        (["FOLDER"], {}, "must hold folders trainA and trainB"),
        (["FOLDER/x", "FOLDER/y"], {"aligned": True}, "no picture of x has the name of one of y"),
        (["FOLDER/bad", "FOLDER/bad"], {"aligned": True, "height": 8, "width": 8}, "not an image.*with their partners"),
    ],
)
def test_refusals(tmp_path, arguments, settings, message):
    picture(tmp_path / "x" / "1.png", RED)
    picture(tmp_path / "y" / "2.png", RED)
    picture(tmp_path / "bad" / "1.png", RED)
    (tmp_path / "bad" / "2.png").write_text("no")
    with pytest.raises(DataError, match=message):
        load_pairs(*(a.replace("FOLDER", str(tmp_path)) for a in arguments), **settings)


def test_other_recipes_are_told_what_it_is():
    with pytest.raises(DataError, match="digits-to-colour holds pictures of two kinds, for the recipes cyclegan and"):
        load("digits-to-colour")
