"""gan-fast: parse, call, print. One file per command, imported when it is called.

Exit codes: 0 done, 1 a failure with one clear line (a traceback with --debug), 2 wrong usage.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Sequence

import gan_fast

# command: (module with a main(argv) -> int or None, what it does)
COMMANDS = {
    "train": ("gan_fast.cli.train", "train a recipe; with no arguments, dcgan on the built-in digits"),
    "resume": ("gan_fast.cli.resume", "go on with a run as if it had never stopped"),
    "generate": ("gan_fast.cli.generate", "write images from a run: PNGs and a grid; of sounds, wav files"),
    "translate": ("gan_fast.cli.translate", "pictures through a cyclegan or pix2pix run, either way"),
    "interpolate": ("gan_fast.cli.interpolate", "walk from seed to seed: a grid, a GIF or an MP4"),
    "edit": ("gan_fast.cli.edit", "move pictures along directions found in the weights (stylegan2)"),
    "project": ("gan_fast.cli.project", "find the styles of a picture (stylegan2)"),
    "vocode": ("gan_fast.cli.vocode", "send wav files through a trained hifigan: sound to mel to sound"),
    "evaluate": ("gan_fast.cli.evaluate", "measure the quality of a run, beside its baselines"),
    "export": ("gan_fast.cli.export", "the generator as torch.export or ONNX, checked, to run without gan_fast"),
    "convert": ("gan_fast.cli.convert", "turn a StyleGAN2 .pkl into safetensors, running nothing of it"),
    "data": ("gan_fast.cli.data", "look into images and pack them for training"),
    "doctor": ("gan_fast.doctor", "versions, devices, and which kernel serves each op and why"),
    "bench": ("gan_fast.bench", "the benchmark table for this machine"),
}

# What the commands need beyond the engine: import name, where it is not the package's own.
_TRAIN_EXTRA = {"tyro", "rich", "safetensors", "matplotlib", "tensorboard", "PIL", "sklearn", "numpy", "scipy"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_usage())
        return 0
    if arguments[0] == "--version":
        print(gan_fast.__version__)
        return 0
    command, *rest = arguments
    if command not in COMMANDS:
        print(f"gan-fast: unknown command {command!r}; it is one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    try:
        return importlib.import_module(COMMANDS[command][0]).main(rest) or 0
    except UsageError as error:
        return _fail(command, str(error), 2, debug)
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing in _TRAIN_EXTRA:
            return _fail(command, f"needs {missing}: pip install 'gan-fast[train]'", 1, debug)
        return _fail(command, str(error), 1, debug)
    except KeyboardInterrupt:
        return _fail(command, "stopped", 1, debug)
    # What can go wrong outside this package: bad data, a damaged checkpoint, a full disk, no memory on the device.
    # Anything else is a mistake in here, and its traceback is the report.
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        return _fail(command, str(error) or type(error).__name__, 1, debug)


class UsageError(Exception):
    """The arguments make no sense together."""


def _fail(command: str, message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"gan-fast {command}: {' '.join(message.split())}", file=sys.stderr)
    return code


def _usage() -> str:
    lines = ["usage: gan-fast COMMAND [options]", ""]
    lines += [f"  {name:<11} {what}" for name, (_, what) in COMMANDS.items()]
    lines += ["", "gan-fast COMMAND --help lists its options; --debug shows the traceback of a failure."]
    return "\n".join(lines)
