"""The road of a stranger: source distribution, wheel, an empty environment, a loss; with and without build isolation.

Slow: compiles everything once and installs torch into an environment of its own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from build_backend import native_build

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
UNREACHABLE = re.compile(r"No matching distribution found|Could not find a version|Connection|Temporary failure", re.I)
USE_A_LOSS = """
import torch, gan_fast
from gan_fast import losses
real, fake = torch.randn(64, requires_grad=True), torch.randn(64)
loss = losses.get("non_saturating")().discriminator(real=real, fake=fake)
loss.backward()
expected = torch.nn.functional.softplus(-real).mean() + torch.nn.functional.softplus(fake).mean()
torch.testing.assert_close(loss, expected)
torch.testing.assert_close(real.grad, -torch.sigmoid(-real.detach()) / 64)
print(gan_fast.__file__)
"""


def run(*command: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, **environment}
    env.pop("PYTHONPATH", None)
    return subprocess.run(list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, check=False)


def pip(python: Path | str, *arguments: object, cwd: Path) -> str:
    """Run pip; skip, saying why, where what it needs from a registry is out of reach."""
    done = run(python, "-m", "pip", *arguments, cwd=cwd)
    output = done.stdout + done.stderr
    if done.returncode != 0 and UNREACHABLE.search(output):
        reason = next(line for line in reversed(output.splitlines()) if UNREACHABLE.search(line))
        pytest.skip(f"pip cannot reach a registry: {reason.strip()}")
    assert done.returncode == 0, output[-5000:]
    return output


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Outside the source folder, so that only what is installed can be imported; gigabytes, hence deleted at once."""
    folder = tmp_path_factory.mktemp("install")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def wheel(folder):
    """sdist -> wheel, without isolation, without network, against the torch that runs this test."""
    if not native_build.find_tool("cmake") or not native_build.find_tool("ninja"):
        pytest.skip("cmake or ninja is not installed")
    script = f"from build_backend import backend; print(backend.build_sdist({str(folder)!r}))"
    ignored = shutil.ignore_patterns(
        ".*", "build", "dist", "runs", "*.egg-info", "__pycache__", "*.so", "_built_for.json"
    )
    project = shutil.copytree(ROOT, folder / "project", ignore=ignored)
    made = run(sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {script}", cwd=project)
    assert made.returncode == 0, made.stdout + made.stderr
    sdist = folder / made.stdout.splitlines()[-1]
    pip(sys.executable, "wheel", "--no-build-isolation", "--no-deps", "--no-index", "-w", folder, sdist, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def environment(folder, wheel):
    """The Python of an empty environment into which the wheel, and with it torch, was installed."""
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    pip(python, "install", wheel, cwd=folder)
    return python


def test_the_wheel_works_in_an_empty_environment(environment, folder):
    used = run(environment, "-c", USE_A_LOSS, cwd=folder)
    assert used.returncode == 0, used.stderr
    assert used.stdout.startswith(str(folder / "venv"))


def test_without_the_train_extra_the_command_names_it_in_one_line(environment, folder):
    command = run(folder / "venv" / "bin" / "gan-fast", "train", cwd=folder)
    assert command.returncode == 1
    assert "[train]" in command.stderr
    assert len(command.stderr.strip().splitlines()) == 1, command.stderr


def test_a_torch_that_moved_gives_one_line(environment, folder):
    note = next((folder / "venv").glob("lib/python*/site-packages/gan_fast/_built_for.json"))
    true_note = note.read_text()
    note.write_text(json.dumps({"torch": "2.1.0"}))
    try:
        used = run(environment, "-c", "import gan_fast", cwd=folder)
    finally:
        note.write_text(true_note)
    last_line = used.stderr.strip().splitlines()[-1]
    assert re.match(
        r"ImportError: gan_fast was built for torch 2\.1\.0, but this is torch .*; run: .*pip install", last_line
    )


def test_isolation_builds_against_the_installed_torch_and_brings_no_other(environment, folder):
    """The C++ sources are emptied: which torch the build finds is the question, not what it compiles."""
    project = folder / "small"
    shutil.copytree(folder / "project", project)
    for source in (project / "csrc").rglob("*"):
        if source.suffix in {".cpp", ".cu"}:
            source.unlink()
    (project / "csrc" / "module.cpp").write_text('extern "C" void* PyInit__C() { return nullptr; }\n')
    output = pip(environment, "wheel", "-v", "--no-deps", "-w", folder / "isolated", project, cwd=folder)
    assert not re.search(r"(Collecting|Installing collected packages:.*\b)torch\b", output)
    installed = run(environment, "-c", "import torch; print(torch.__version__)", cwd=folder).stdout.strip()
    (built,) = (folder / "isolated").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        assert json.loads(archive.read("gan_fast/_built_for.json")) == {"torch": installed}
