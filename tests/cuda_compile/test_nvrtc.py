"""NVRTC's disk cache: compiled once, whole or absent, rebuilt where damaged; clear errors."""

from __future__ import annotations

import builtins
from pathlib import Path
from typing import Any

import pytest

from cuda_compile import compilers
from gan_fast import nvrtc

SOURCE = 'extern "C" __global__ void twice(float* x) { x[threadIdx.x] *= 2; }'


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def builds(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The architectures compiled for, by a compiler that needs no NVRTC."""
    made: list[str] = []

    def build(name: str, source: str, arch: str) -> bytes:
        made.append(arch)
        return f"cubin of {name} for {arch}".encode()

    monkeypatch.setattr(nvrtc, "_build", build)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    return made


def test_compiles_once_for_each_source_architecture_and_version(
    builds: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nvrtc.compile("twice", SOURCE, 9, 0) == nvrtc.compile("twice", SOURCE, 9, 0) == b"cubin of twice for sm_90"
    assert builds == ["sm_90"]
    nvrtc.compile("twice", SOURCE, 12, 0)
    nvrtc.compile("twice", SOURCE + " ", 9, 0)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 1))
    nvrtc.compile("twice", SOURCE, 9, 0)
    assert builds == ["sm_90", "sm_120", "sm_90", "sm_90"]


@pytest.mark.parametrize(
    "damage", [lambda d: d[:-3], lambda d: b"", lambda d: b"something else", lambda d: d[:-1] + b"?"]
)
def test_a_damaged_file_is_compiled_anew(builds: list[str], cache: Path, damage: Any) -> None:
    expected = nvrtc.compile("twice", SOURCE, 9, 0)
    (file,) = cache.iterdir()
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    assert nvrtc.compile("twice", SOURCE, 9, 0) == expected
    assert file.read_bytes() == whole and builds == ["sm_90", "sm_90"]


def test_an_interrupted_write_leaves_nothing(builds: list[str], cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(nvrtc.os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        nvrtc.compile("twice", SOURCE, 9, 0)
    assert not list(cache.iterdir())


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    builds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GAN_FAST_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="GAN_FAST_CACHE"):
        assert nvrtc.compile("twice", SOURCE, 9, 0) == b"cubin of twice for sm_90"


def test_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("GAN_FAST_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert nvrtc.cache_folder() == tmp_path / "gan_fast"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert nvrtc.cache_folder() == Path.home() / ".cache" / "gan_fast"


def test_without_cuda_bindings_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without_cuda(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("cuda"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_cuda)
    with pytest.raises(RuntimeError, match=r"pip install 'gan-fast\[nvrtc\]'"):
        nvrtc.compile("twice", SOURCE, 9, 0)


def test_the_compiler_s_log_is_in_the_error() -> None:
    if compilers.nvrtc_missing() is not None:
        pytest.skip(str(compilers.nvrtc_missing()))
    assert nvrtc.compile("twice", SOURCE, 9, 0)[:4] == b"\x7fELF"
    with pytest.raises(nvrtc.CompileError, match=r'broken for sm_90.*\n.*identifier "nothing" is undefined'):
        nvrtc.compile("broken", 'extern "C" __global__ void broken() { nothing(); }', 9, 0)
    with pytest.raises(nvrtc.CompileError, match="sm_10"):
        nvrtc.compile("twice", SOURCE, 1, 0)
