"""What a number is worth nothing without: device, threads, versions, commit, date; and the record as plain data."""

from __future__ import annotations

import datetime
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

import gan_fast
from gan_fast.bench.measure import Measurement


def device_name(device: torch.device) -> str:
    """The card's name, or the processor's as the system gives it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def commit() -> str:
    """The commit of the checkout that gan_fast runs from, with "+" where files differ from it; else the version."""
    root = Path(gan_fast.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return f"version {gan_fast.__version__}"
    try:
        head = _git(root, "rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git(root, "status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.CalledProcessError):
        return f"version {gan_fast.__version__}"


def _git(root: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def environment(device: torch.device) -> dict[str, Any]:
    """The conditions of a run."""
    return {
        "device": device_name(device),
        "device_type": device.type,
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "gan_fast": gan_fast.__version__,
        "commit": commit(),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }


def rows(measurements: Iterable[Measurement]) -> list[dict[str, Any]]:
    """One row a contender: times in seconds, ratios of ours to the fastest of each kind on our own row."""
    found = []
    for m in measurements:
        for t in m.timings:
            row = {
                "case": m.case.name,
                "group": m.case.group,
                "size": m.case.size,
                "contender": t.name,
                "role": t.role,
                "median": t.median,
                "q1": t.q1,
                "q3": t.q3,
                "rounds": t.rounds,
                "repeats": t.repeats,
                "bytes": m.case.traffic,
                "gigabytes_per_second": m.gigabytes_per_second(t) if m.case.traffic else None,
                "share_of_copy": m.copy_share(t),
            }
            row.update((name, value) for name, value in asdict(t.figures).items() if value is not None)
            if t.role == "ours":
                row["ratio_to_eager"], row["ratio_to_compiled"] = m.ratio("eager"), m.ratio("compiled")
            found.append(row)
    return found
