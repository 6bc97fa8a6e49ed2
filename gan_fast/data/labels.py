"""A file of labels beside images: which class each image belongs to, whatever folder it lies in.

labels.csv      one `file,label` a line; a first line such as `file,label` is a header, and further columns are ignored
                where it names one `label`
labels.json     {"a.png": "cat", ...} or [["a.png", "cat"], ...]
dataset.json    {"labels": [["00000/img00000000.png", 6], ...]}, as NVIDIA's dataset_tool.py writes it; null for none

Files are named by their path from the label file. A label is a name or a whole number; classes are sorted, by value
where all of them are whole numbers.
"""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from gan_fast.data.errors import DataError

LABEL_FILES = ("labels.csv", "labels.json", "dataset.json")


def read_labels(name: str, content: bytes) -> dict[str, str] | None:
    """The label of each file, from the bytes of the label file called `name`; None where it says there are none.

    Raises DataError for anything else than described above.
    """
    try:
        text = content.decode("utf-8-sig")
        rows = _csv_rows(text) if name.endswith(".csv") else _json_rows(json.loads(text))
    except (UnicodeDecodeError, csv.Error, json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"{name} cannot be read: {error}") from error
    except _Malformed as fault:
        raise DataError(f"{name}: {fault}; expected a file and one label for each image") from None
    if rows is None:
        return None
    labels: dict[str, str] = {}
    for file, label in rows:
        path = file.strip().replace("\\", "/").removeprefix("./")
        if labels.setdefault(path, label) != label:
            raise DataError(f"{name} gives {path} two labels, {labels[path]} and {label}: leave one")
    return labels


def class_numbers(labels: list[str]) -> tuple[tuple[str, ...], list[int]]:
    """Names of the classes in order, and the number of each label's; none of fewer than two classes."""
    names = set(labels)
    whole = all(name.lstrip("-").isdecimal() for name in names)
    classes = tuple(sorted(names, key=lambda name: (int(name), name)) if whole else sorted(names))
    if len(classes) < 2:
        return (), []
    numbers = {name: i for i, name in enumerate(classes)}
    return classes, [numbers[label] for label in labels]


class _Malformed(Exception):
    """What is wrong, in words."""


def _csv_rows(text: str) -> list[tuple[str, str]]:
    rows = [row for row in csv.reader(io.StringIO(text)) if any(cell.strip() for cell in row)]
    column, start = 1, 0
    # A header names no file: there is no dot in it.
    if rows and "." not in rows[0][0]:
        header = [cell.strip().lower() for cell in rows[0]]
        column, start = (header.index("label") if "label" in header else 1), 1
        if len(header) != 2 and "label" not in header:
            raise _Malformed(f"its header is {','.join(header)} and names no column label")
    found = []
    for number, row in enumerate(rows[start:], start + 1):
        if len(row) <= column or (not start and len(row) != 2) or not row[column].strip():
            raise _Malformed(f"line {number} is {','.join(row)!r}")
        found.append((row[0], row[column].strip()))
    return found


def _json_rows(content: Any) -> list[tuple[str, str]] | None:
    if isinstance(content, dict) and "labels" in content and not isinstance(content["labels"], (str, int)):
        content = content["labels"]
    if content is None:
        return None
    pairs = list(content.items()) if isinstance(content, dict) else content
    if not isinstance(pairs, list):
        raise _Malformed(f"it holds a {type(pairs).__name__}")
    found = []
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2 or not isinstance(pair[0], str):
            raise _Malformed(f"it holds {json.dumps(pair)[:80]}")
        file, label = pair
        if isinstance(label, bool) or not isinstance(label, (str, int)) or label == "":
            raise _Malformed(f"the label of {file} is {json.dumps(label)[:80]}")
        found.append((file, str(label)))
    return found
