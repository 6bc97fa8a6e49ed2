"""Embedding: the text that NVRTC gets is complete and is what the files say; the fatbin is byte for byte nvcc's."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def load_script():
    spec = importlib.util.spec_from_file_location("embed_device_code", ROOT / "cmake" / "embed_device_code.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


embed = load_script()


@pytest.fixture
def csrc(tmp_path):
    """scale.cu includes scale.h (beside it) and common/math.h (from the root), which scale.h includes too."""
    root = tmp_path / "csrc"
    (root / "common" / "cuda").mkdir(parents=True)
    (root / "scale").mkdir()
    (root / "common" / "math.h").write_text("#pragma once\ninline float twice(float x) { return 2 * x; }\n")
    (root / "scale" / "scale.h").write_text('#pragma once\n#include "common/math.h"\nconst int kBlock = 256;\n')
    (root / "scale" / "scale.cu").write_text(
        '#include "common/math.h"\n#include "scale.h"\n#include <stddef.h>\n// é ) "\n'
        "float f(float x) { return twice(x) + kBlock; }\n"
    )
    shutil.copy(ROOT / "csrc" / "common" / "cuda" / "embedded.h", root / "common" / "cuda")
    return root


def test_quoted_includes_are_pasted_in_and_the_result_compiles(csrc, tmp_path):
    text = embed.flatten(csrc / "scale" / "scale.cu", csrc)
    assert '#include "' not in text
    assert "#include <stddef.h>" in text
    assert "#pragma once" not in text
    alone = tmp_path / "alone.cpp"
    alone.write_text(text)
    compiled = subprocess.run(
        ["c++", "-std=c++17", "-fsyntax-only", alone], capture_output=True, text=True, check=False
    )
    assert compiled.returncode == 0, compiled.stderr


def test_errors_name_the_file_a_person_wrote(csrc, tmp_path):
    with (csrc / "scale" / "scale.h").open("a") as header:
        header.write("int wrong = ;\n")
    alone = tmp_path / "alone.cpp"
    alone.write_text(embed.flatten(csrc / "scale" / "scale.cu", csrc))
    compiled = subprocess.run(["c++", "-fsyntax-only", alone], capture_output=True, text=True, check=False)
    assert "scale/scale.h:4:" in compiled.stderr


def test_a_missing_include_stops_the_build(csrc):
    (csrc / "scale" / "scale.cu").write_text('#include "absent.h"\n')
    with pytest.raises(SystemExit, match=r'scale\.cu: #include "absent\.h" is neither beside it nor under'):
        embed.flatten(csrc / "scale" / "scale.cu", csrc)


@pytest.mark.parametrize("with_fatbin", [True, False], ids=["nvcc", "no nvcc"])
def test_the_generated_file_gives_back_source_and_fatbin(csrc, tmp_path, with_fatbin):
    fatbin = tmp_path / "scale.fatbin"
    fatbin.write_bytes(bytes(range(256)) * 3)
    with (csrc / "scale" / "scale.cu").open("a") as source:
        source.write("// long\n" * 5000)  # longer than one literal
    generated = tmp_path / "embedded_kernels.cpp"
    archs = "80;90+PTX" if with_fatbin else ""
    generated.write_text(embed.generate(csrc, archs, [csrc / "scale" / "scale.cu"], [fatbin] if with_fatbin else []))
    main = tmp_path / "main.cpp"
    main.write_text(
        '#include "common/cuda/embedded.h"\n#include <cstdio>\n#include <cstring>\n'
        "using namespace gan_fast::cuda;\nint main() {\n"
        "  const EmbeddedKernel& k = embedded_kernels[0];\n"
        '  std::fprintf(stderr, "%d %s %zu %s", embedded_kernel_count, k.name, k.fatbin_size, embedded_archs);\n'
        "  std::fwrite(k.fatbin, 1, k.fatbin_size, stdout);\n  std::fputs(k.source, stdout);\n}\n"
    )
    program = tmp_path / "program"
    subprocess.run(["c++", "-std=c++20", "-I", csrc, main, generated, "-o", program], check=True)
    shown = subprocess.run([program], capture_output=True, check=True)
    data = fatbin.read_bytes() if with_fatbin else b""
    assert shown.stderr.decode() == f"1 scale {len(data)} {archs}"
    assert shown.stdout == data + embed.flatten(csrc / "scale" / "scale.cu", csrc).encode()


def test_without_device_code_the_file_still_compiles(csrc, tmp_path):
    generated = tmp_path / "embedded_kernels.cpp"
    generated.write_text(embed.generate(csrc, "", [], []))
    subprocess.run(["c++", "-std=c++20", "-fsyntax-only", "-I", csrc, generated], check=True)
