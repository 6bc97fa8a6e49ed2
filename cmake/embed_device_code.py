"""Writes embedded_kernels.cpp: every .cu file as one self-contained source text and, where nvcc made one, a fatbin.

NVRTC gets one string and no files, so each quoted include is replaced by the header's text, as a preprocessor would do
it: guarded so that a second inclusion is empty, with #line marks so that an error names the file the person wrote.
Angle-bracket includes stay as they are. A fatbin can be megabytes, so the assembler reads it from its file: as a C++
array it would take the compiler minutes.
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')
PRAGMA_ONCE = re.compile(r"^\s*#\s*pragma\s+once\b")
DELIMITER = "gan_fast_source"
# Compilers must take 65,536 characters in a literal, and adjacent ones are joined.
CHARACTERS_PER_LITERAL = 16_000


def resolve(name: str, including: Path, root: Path) -> Path:
    for candidate in (including.parent / name, root / name):
        if candidate.is_file():
            return candidate.resolve()
    raise SystemExit(f'{including}: #include "{name}" is neither beside it nor under {root}')


def flatten(path: Path, root: Path, opened: tuple[Path, ...] = ()) -> str:
    """The text of a file with its quoted includes pasted in, recursively."""
    if path in opened:
        return ""
    shown = path.relative_to(root).as_posix()
    lines = [f'#line 1 "{shown}"']
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        include = INCLUDE.match(line)
        if include:
            lines.append(flatten(resolve(include[1], path, root), root, (*opened, path)))
            lines.append(f'#line {number + 1} "{shown}"')
        else:
            lines.append("" if PRAGMA_ONCE.match(line) else line)
    if opened:
        guard = "GAN_FAST_EMBEDDED_" + re.sub(r"\W", "_", shown).upper()
        lines = [f"#ifndef {guard}", f"#define {guard}", *lines, "#endif"]
    return "\n".join(lines)


def raw_string(text: str) -> str:
    if f"){DELIMITER}" in text:
        raise SystemExit(f"device code holds `){DELIMITER}`, which ends the literal that embeds it")
    pieces = [text[i : i + CHARACTERS_PER_LITERAL] for i in range(0, len(text), CHARACTERS_PER_LITERAL)]
    return "\n".join(f'R"{DELIMITER}({piece}){DELIMITER}"' for piece in pieces)


def included_binary(symbol: str, path: Path) -> str:
    """Declares `symbol`, the bytes of a file. The hash makes the text change whenever the bytes do."""
    lines = (
        ".pushsection .rodata",
        f"/* {hashlib.sha256(path.read_bytes()).hexdigest()} */",
        ".balign 16",
        f"{symbol}:",
        f'.incbin \\"{path.resolve()}\\"',
        ".popsection",
    )
    assembly = "\n".join(f'    "{line}\\n"' for line in lines)
    return f'extern "C" __attribute__((visibility("hidden"))) const unsigned char {symbol}[];\n__asm__(\n{assembly});\n'


def generate(root: Path, archs: str, sources: list[Path], fatbins: list[Path]) -> str:
    names = [source.stem for source in sources]
    if len(set(names)) != len(names):
        raise SystemExit(f"device source files must have different names, got {', '.join(map(str, sources))}")
    images = {fatbin.stem: fatbin for fatbin in fatbins}
    parts = ['#include "common/cuda/embedded.h"\n\nnamespace gan_fast::cuda {\nnamespace {\n']
    entries = []
    for source, name in zip(sources, names, strict=True):
        parts.append(f"const char {name}_source[] =\n{raw_string(flatten(source.resolve(), root))};\n")
        image = images.get(name)
        if image is None:
            entries.append(f'    {{"{name}", nullptr, 0, {name}_source}},')
        else:
            symbol = f"gan_fast_{name}_fatbin"
            parts.append(included_binary(symbol, image))
            entries.append(f'    {{"{name}", {symbol}, {image.stat().st_size}, {name}_source}},')
    parts.append("}  // namespace\n")
    # An array must not be empty: without device code it has one entry that nobody reads.
    table = "\n".join(entries) or "    {nullptr, nullptr, 0, nullptr},"
    parts.append(f"extern const EmbeddedKernel embedded_kernels[] = {{\n{table}\n}};")
    parts.append(f"extern const int embedded_kernel_count = {len(entries)};")
    parts.append(f'extern const char* const embedded_archs = "{archs}";\n')
    parts.append("}  // namespace gan_fast::cuda\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, help="the folder that includes are relative to")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--archs", required=True)
    parser.add_argument("--sources", type=Path, nargs="*", default=[])
    parser.add_argument("--fatbins", type=Path, nargs="*", default=[])
    arguments = parser.parse_args()
    text = generate(arguments.root.resolve(), arguments.archs, arguments.sources, arguments.fatbins)
    arguments.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
