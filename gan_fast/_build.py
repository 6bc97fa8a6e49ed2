"""Whether the compiled extension fits the torch that is here, found out before it is loaded.

torch's C++ interface changes with each minor version: an extension for another one fails with an undefined symbol at
best. The build leaves a note of its torch beside the extension, and `check()` compares it with the torch that is here.
CPU and CUDA builds of one torch version share the interface, so one build of gan_fast serves both.
"""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import json
import re
import shlex
import sys
import urllib.parse
from pathlib import Path

import torch

PACKAGE = Path(__file__).parent


def check(package: Path = PACKAGE, torch_version: str = torch.__version__) -> None:
    """Raise ImportError, in one line that says how to mend it, unless `_C` is there and was built for this torch."""
    if not any((package / f"_C{suffix}").is_file() for suffix in importlib.machinery.EXTENSION_SUFFIXES):
        others = sorted(path.name for path in package.glob("_C.*.so"))
        if others:
            python = ".".join(map(str, sys.version_info[:2]))
            problem = f"its extension is for another Python ({others[0]}; this is {python})"
        elif (package.parent / "CMakeLists.txt").is_file():
            problem = "a source folder whose extension is not built (an installed gan_fast is found from other folders)"
        else:
            problem = "its extension is missing"
        raise ImportError(f"gan_fast in {package}: {problem}; run: {rebuild_command(package)}")
    note = package / "_built_for.json"
    if not note.is_file():
        raise ImportError(
            f"gan_fast in {package}: {note.name} is missing, so its extension may be for another torch; "
            f"run: {rebuild_command(package)}"
        )
    built_for = json.loads(note.read_text(encoding="utf-8"))["torch"]
    if _minor(built_for) != _minor(torch_version):
        raise ImportError(
            f"gan_fast was built for torch {built_for}, but this is torch {torch_version}; "
            f"run: {rebuild_command(package)}"
        )


def rebuild_command(package: Path = PACKAGE) -> str:
    """The pip command that builds this copy of gan_fast for the installed torch, and touches nothing else."""
    pip = f"{shlex.quote(sys.executable)} -m pip install --no-deps"
    if (package.parent / "CMakeLists.txt").is_file():
        return f"{pip} -e {shlex.quote(str(package.parent))}"
    source = _installed_from()
    if source is not None:
        return f"{pip} --force-reinstall {shlex.quote(str(source))}"
    return f"{pip} --force-reinstall --no-cache-dir --no-binary gan-fast gan-fast"


def _installed_from() -> Path | None:
    """The source folder that pip installed gan_fast from, where that is known and still there."""
    try:
        recorded = importlib.metadata.distribution("gan-fast").read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:
        return None
    if recorded is None:
        return None
    url = urllib.parse.urlsplit(json.loads(recorded)["url"])
    folder = Path(urllib.parse.unquote(url.path))
    return folder if url.scheme == "file" and (folder / "CMakeLists.txt").is_file() else None


def _minor(version: str) -> tuple[int, int]:
    """(2, 14) for 2.14.1+cu130."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None:
        raise ImportError(f"gan_fast: cannot read a version from {version!r}; expected something like 2.14.1")
    return int(match[1]), int(match[2])
