"""Runs a script of a checkout, unchanged, with the replacements in place.

    python -m gan_fast.compat.nvlabs [--device auto|cpu|cuda] [--package NAME] SCRIPT [arguments of the script]

The script sees the arguments, the path and the `__main__` that `python SCRIPT` would give it. Scripts of these code
bases say `torch.device("cuda")` outright: with `--device cpu`, and with `auto` where there is no card, what they put
there runs on the CPU (`gan_fast/compat/_cuda_on_cpu.py`).
"""

from __future__ import annotations

import argparse
import contextlib
import runpy
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from gan_fast.compat._cuda_on_cpu import cuda_on_cpu


def main(name: str, install: Callable[..., list[str]], arguments: Sequence[str]) -> int:
    """Exit code 2 for wrong usage; else whatever the script ends with."""
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}", description="Run a script of a checkout on gan_fast's ops.", allow_abbrev=False
    )
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="where 'cuda' is")
    parser.add_argument("--package", help="where the checkout has the ops, if not in the usual place")
    parser.add_argument("script", type=Path, help="such as train.py")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the script's own")
    options = parser.parse_args(arguments)
    if not options.script.is_file():
        parser.error(f"{options.script} is not a file: name a script of the checkout")
    replaced = install(options.package) if options.package else install()
    on_cpu = options.device == "cpu" or (options.device == "auto" and not torch.cuda.is_available())
    where = "; what the script puts on cuda runs on the CPU" if on_cpu else ""
    print(f"{name}: {len(replaced)} names replaced, {replaced[0]} first{where}", file=sys.stderr, flush=True)

    sys.argv = [str(options.script), *options.arguments]
    folder = str(options.script.resolve().parent)
    if getattr(sys.flags, "safe_path", False):
        sys.path.insert(0, folder)
    else:
        sys.path[0] = folder
    with cuda_on_cpu() if on_cpu else contextlib.nullcontext():
        runpy.run_path(str(options.script), run_name="__main__")
    return 0
