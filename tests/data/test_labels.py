"""Files of labels beside images: read from a folder and a zip, over folders, and refused with the reason."""

from __future__ import annotations

import json
import zipfile

import pytest
from PIL import Image

from gan_fast.data import DataError, inspect, load, pack
from gan_fast.data.labels import class_numbers, read_labels

FILES = ("a.png", "b.png", "sub/c.png")


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    for value, name in enumerate(FILES):
        Image.new("L", (8, 8), 50 * value).save(root / name)
    return root


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("labels.csv", "a.png,cat\nb.png,dog\nsub/c.png,cat\n"),
        ("labels.csv", "\ufefffile,label\r\n./a.png,cat\r\nsub\\c.png,cat\r\n\r\nb.png, dog\r\n"),
        ("labels.csv", "id,author,label\na.png,me,cat\nb.png,you,dog\nsub/c.png,me,cat\n"),
        ("labels.json", json.dumps({"a.png": "cat", "b.png": "dog", "sub/c.png": "cat"})),
        ("dataset.json", json.dumps({"labels": [["sub/c.png", "cat"], ["a.png", "cat"], ["b.png", "dog"]]})),
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_labels_beside_images(folder, tmp_path, name, content, zipped):
    (folder / name).write_text(content, newline="")
    where = folder
    if zipped:
        where = tmp_path / "set.zip"
        with zipfile.ZipFile(where, "w") as archive:
            for file in (*FILES, name):
                archive.write(folder / file, f"inner/{file}")
    found = load(where)
    assert found.classes == ("cat", "dog") and found.skipped == {}
    assert {int(image[0, 0, 0]) // 50: int(label) for image, label in zip(found.images, found.labels, strict=True)} == {
        0: 0,
        1: 1,
        2: 0,
    }
    assert inspect(where).classes == {"cat": 2, "dog": 1}
    pack(where, tmp_path / "packed.safetensors")
    assert load(tmp_path / "packed.safetensors").fingerprint == found.fingerprint


def test_what_has_no_partner_is_named(folder):
    (folder / "labels.csv").write_text("a.png,1\nsub/c.png,0\nd.png,1\n")
    assert load(folder).skipped == {"no label in labels.csv": ["b.png"], "only in labels.csv": ["d.png"]}


def test_split_folders_keep_their_meaning(tmp_path):
    rows = {}
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        for i in range(4):
            Image.new("L", (8, 8), i).save(tmp_path / part / f"{i}.png")
            rows[f"{part}/{i}.png"] = i % 2
    (tmp_path / "labels.json").write_text(json.dumps(rows))
    found = load(tmp_path)
    assert found.labels.tolist() == found.held_out.labels.tolist() == [0, 1, 0, 1]


def test_no_labels_are_no_labels(folder):
    (folder / "dataset.json").write_text('{"labels": null}')
    assert load(folder).labels is None and len(load(folder)) == 3


def test_classes_in_order():
    assert class_numbers(["10", "9", "10"]) == (("9", "10"), [1, 0, 1])
    assert class_numbers(["b", "10", "9"])[0] == ("10", "9", "b")
    assert class_numbers(["x", "x"]) == ((), [])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("labels.csv", "a.png,cat\nb.png\n", r"labels.csv: line 2 is 'b.png'; expected a file and one label"),
        ("labels.csv", "a.png,cat,3\n", "line 1 is 'a.png,cat,3'"),
        ("labels.csv", "file,breed,age\na.png,cat,3\n", "its header is file,breed,age and names no column label"),
        ("labels.csv", "a.png,cat\na.png,dog\n", "gives a.png two labels, cat and dog"),
        ("labels.csv", "x.png,cat\n", r"names none of the 3 files there \(it names x.png\): name each by its path"),
        ("labels.json", "{", "labels.json cannot be read: Expecting"),
        ("labels.json", "3", "labels.json: it holds a int"),
        ("labels.json", '{"a.png": 1.5}', "the label of a.png is 1.5"),
        ("dataset.json", '{"labels": [["a.png", [0, 1]]]}', r"the label of a.png is \[0, 1\]"),
        ("dataset.json", '{"labels": ["a.png"]}', 'it holds "a.png"'),
    ],
)
def test_refusals(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        load(folder)


def test_two_lists_and_bytes_are_refused(folder):
    with pytest.raises(DataError, match=r"labels.csv cannot be read: 'utf-8'"):
        read_labels("labels.csv", b"a.png,\xff\n")
    for name in ("labels.csv", "labels.json"):
        (folder / name).write_text("{}")
    with pytest.raises(DataError, match=r"holds labels.csv and labels.json: keep the one"):
        load(folder)
