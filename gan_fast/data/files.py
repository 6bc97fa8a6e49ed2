"""Image files in a folder or a zip: which there are, what class each belongs to, and their bytes.

A zip is read where it lies; nothing is extracted, so a name like `../../x` can only be refused, not followed.
"""

from __future__ import annotations

import io
import os
import threading
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from gan_fast.data.decode import Unusable
from gan_fast.data.errors import DataError
from gan_fast.data.labels import LABEL_FILES, class_numbers, read_labels

# One file of more bytes is not a picture to train on; for a zip this is the unpacked size.
MOST_BYTES = 256 << 20
_TRAIN = {"train", "training"}
_TEST = {"test", "testing", "val", "valid", "validation"}
# Names that tools leave beside pictures. They are not listed as skipped: nobody put them there as data.
_LITTER = {"__MACOSX", "Thumbs.db", "desktop.ini", ".DS_Store"}


@dataclass(frozen=True)
class Candidate:
    """A file that may be an image. `source()` is its path or its bytes; it may raise Unusable."""

    name: str
    source: Callable[[], str | io.BytesIO]


@dataclass
class Collection:
    """Everything found, sorted by name, and what was refused before opening it.

    `held`: for each candidate, whether folders named train and test (or val) hold it out; None without such folders.
    """

    name: str
    candidates: list[Candidate]
    refused: dict[str, list[str]] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    labels: list[int] | None = None
    held: list[bool] | None = None


def collect(path: Path) -> Collection:
    """The candidates in a folder or a zip. Raises DataError where there are none."""
    refused: dict[str, list[str]] = {}
    found = _in_folder(path, refused) if path.is_dir() else _in_zip(path, refused)
    if not found:
        why = "; ".join(f"{len(names)} {reason}" for reason, names in refused.items())
        raise DataError(f"{path} holds no files to read" + (f" ({why})" if why else "") + ": give a folder of images")
    found.sort(key=lambda candidate: candidate.name)
    name = path.stem if path.is_file() else path.resolve().name
    found, given = _labelled(path, found, refused)
    classes, labels, held = organise([candidate.name for candidate in found])
    if given is not None:
        classes, numbers = class_numbers(given)
        labels = numbers or None
    return Collection(name, found, refused, classes, labels, held)


def _labelled(
    path: Path, found: list[Candidate], refused: dict[str, list[str]]
) -> tuple[list[Candidate], list[str] | None]:
    """What is left of the candidates without a file of labels at their top, and its label for each; None without one.

    A file without a label is refused, and so is a label without a file.
    """
    inner = ["/".join(parts) for parts in _without_common_root([PurePosixPath(c.name).parts for c in found])]
    lists = [i for i, name in enumerate(inner) if name in LABEL_FILES]
    if len(lists) > 1:
        raise DataError(f"{path} holds {' and '.join(inner[i] for i in lists)}: keep the one that has the labels")
    if not lists:
        return found, None
    where = lists[0]
    try:
        source = found[where].source()
        content = Path(source).read_bytes() if isinstance(source, str) else source.read()
    except (Unusable, OSError) as error:
        raise DataError(f"{inner[where]} in {path} cannot be read: {error}") from error
    labels = read_labels(inner[where], content)
    others = [(name, candidate) for i, (name, candidate) in enumerate(zip(inner, found, strict=True)) if i != where]
    if labels is None:
        return [candidate for _, candidate in others], None
    kept = [(name, candidate) for name, candidate in others if name in labels]
    if not kept:
        example = next(iter(labels), "nothing")
        raise DataError(
            f"{inner[where]} in {path} names none of the {len(others)} files there (it names {example}): "
            "name each by its path from the label file"
        )
    unlabelled = [candidate.name for name, candidate in others if name not in labels]
    missing = sorted(labels.keys() - {name for name, _ in others})
    for reason, names in ((f"no label in {inner[where]}", unlabelled), (f"only in {inner[where]}", missing)):
        if names:
            refused[reason] = names
    return [candidate for _, candidate in kept], [labels[name] for name, _ in kept]


def organise(names: Sequence[str]) -> tuple[tuple[str, ...], list[int] | None, list[bool] | None]:
    """Class names, labels and held-out marks, from where files lie.

    A folder that holds everything (as zips often have) is looked through. Folders named like a split are one; inside
    them, or without them, files have labels where each lies in one of at least two first-level folders.
    """
    parts = _without_common_root([PurePosixPath(name).parts for name in names])
    held = None
    tops = {p[0].lower() for p in parts if len(p) > 1}
    if all(len(p) > 1 for p in parts) and tops & _TRAIN and tops & _TEST and tops <= _TRAIN | _TEST:
        held = [p[0].lower() in _TEST for p in parts]
        parts = [p[1:] for p in parts]
    if any(len(p) < 2 for p in parts) or len({p[0] for p in parts}) < 2:
        return (), None, held
    classes = tuple(sorted({p[0] for p in parts}))
    numbers = {name: i for i, name in enumerate(classes)}
    return classes, [numbers[p[0]] for p in parts], held


def _without_common_root(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    while all(len(p) > 1 and p[0] == parts[0][0] for p in parts):
        parts = [p[1:] for p in parts]
    return parts


def _in_folder(root: Path, refused: dict[str, list[str]]) -> list[Candidate]:
    found = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not _is_litter(name))
        for file in files:
            path = Path(folder, file)
            name = path.relative_to(root).as_posix()
            if _is_litter(file):
                continue
            if not path.is_file():
                # A pipe or a device would block for ever when opened; a dangling link has nothing behind it.
                refused.setdefault("not a regular file", []).append(name)
            elif path.stat().st_size > MOST_BYTES:
                refused.setdefault(f"more than {MOST_BYTES >> 20} MiB", []).append(name)
            else:
                found.append(Candidate(name, partial(str, path)))
    return found


def _in_zip(path: Path, refused: dict[str, list[str]]) -> list[Candidate]:
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, NotImplementedError, ValueError) as error:
        raise DataError(f"{path} is not a zip that can be read ({error})") from error
    lock = threading.Lock()
    found = []
    for info in archive.infolist():
        parts = PurePosixPath(info.filename.replace("\\", "/")).parts
        if info.is_dir() or any(_is_litter(part) for part in parts if part != ".."):
            continue
        if ".." in parts or PurePosixPath(info.filename).is_absolute() or (parts and ":" in parts[0]):
            refused.setdefault("name leads out of the zip", []).append(info.filename)
        elif info.flag_bits & 1:
            refused.setdefault("encrypted", []).append(info.filename)
        elif info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            refused.setdefault("compressed in an unusual way", []).append(info.filename)
        elif info.file_size > MOST_BYTES:
            refused.setdefault(f"more than {MOST_BYTES >> 20} MiB", []).append(info.filename)
        else:
            found.append(Candidate("/".join(parts), _member_reader(archive, info, lock)))
    return found


def _member_reader(archive: zipfile.ZipFile, info: zipfile.ZipInfo, lock: threading.Lock) -> Callable[[], io.BytesIO]:
    def read() -> io.BytesIO:
        # The directory's size may be a lie: never unpack more than the limit.
        try:
            with lock, archive.open(info) as member:
                unpacked = member.read(MOST_BYTES + 1)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, NotImplementedError, RuntimeError) as error:
            raise Unusable("damaged in the zip") from error
        if len(unpacked) > MOST_BYTES:
            raise Unusable(f"more than {MOST_BYTES >> 20} MiB")
        return io.BytesIO(unpacked)

    return read


def _is_litter(name: str) -> bool:
    return name in _LITTER or name.startswith(".")
