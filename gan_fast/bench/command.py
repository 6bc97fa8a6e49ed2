"""`gan-fast bench`: the benchmark table for this machine."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from gan_fast.bench import record
from gan_fast.bench.cases import Case, WrongResult, all_cases
from gan_fast.bench.measure import Measurement, Timing, copy_bandwidth, measure

HEADER = ("case", "gan_fast", "eager", "torch.compile", "x eager", "x compile", "GB/s", "of copy")
OBSERVED_HEADER = ("contender", "median", "quartiles", "/ gan_fast", "convolutions", "passes", "peak MB", "error")


def parser() -> argparse.ArgumentParser:
    """The command's options."""
    p = argparse.ArgumentParser(
        prog="gan-fast bench",
        description="Times gan_fast beside plain PyTorch and torch.compile.",
    )
    p.add_argument("--quick", action="store_true", help="few rounds, no case above 61,504 logits, and few critic steps")
    p.add_argument("--filter", default="", metavar="TEXT", help="only cases whose name contains TEXT")
    p.add_argument("--json", type=Path, metavar="FILE", help="also write the record here")
    p.add_argument("--check", action="store_true", help="exit 1 where a target of the project is missed")
    p.add_argument("--list", action="store_true", help="name the cases and stop")
    p.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    p.add_argument("--threads", type=int, metavar="N", help="intra-op threads of PyTorch")
    return p


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the cases, prints one line each; returns 1 after a wrong result or, with --check, a missed target."""
    options = parser().parse_args(argv)
    chosen = [case for case in all_cases() if options.filter in case.name]
    if options.quick:
        chosen = [case for case in chosen if case.quick and case.size <= 61_504]
    if not chosen:
        print(f"no case's name contains {options.filter!r}; --list names them", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(case.name for case in chosen))
        return 0
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    conditions = record.environment(device)
    conditions["copy_gigabytes_per_second"] = copy_bandwidth(device, 64 if options.quick else 256)
    print(
        f"{conditions['device']}, {conditions['threads']} threads, torch {conditions['torch']}, gan_fast "
        f"{conditions['commit']}, copy {conditions['copy_gigabytes_per_second']:.1f} GB/s"
    )
    measurements, wrong = _measure_all(chosen, device, quick=options.quick)
    print_table(HEADER, [_cells(m) for m in measurements])
    observed = [(m, m.observed()) for m in measurements if m.observed()]
    if observed:
        print("passes: convolution flops over one forward's; peak: tensors; error: worst gradient's, against float64")
    for m, timings in observed:
        print_table((m.case.name, *OBSERVED_HEADER[1:]), [_observed_cells(m, t) for t in timings])
    missed = [line for m in measurements for line in m.missed_targets()]
    if options.check:
        print("\n".join(f"missed: {line}" for line in missed) or "every target is met")
    if options.json:
        text = json.dumps({"environment": conditions, "results": record.rows(measurements)}, indent=1)
        options.json.write_text(text + "\n")
    return 1 if wrong or (options.check and missed) else 0


def _measure_all(chosen: Sequence[Case], device: torch.device, *, quick: bool) -> tuple[list[Measurement], int]:
    measurements, wrong = [], 0
    for case in chosen:
        torch.compiler.reset()
        try:
            rounds, budget = (15, 1.0) if quick else (60, 6.0)
            measurements.append(measure(case, device=device, rounds=rounds, budget=budget, quick=quick))
        except WrongResult as error:
            wrong += 1
            print(f"refused: {error}", file=sys.stderr)
    return measurements, wrong


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def _cells(m: Measurement) -> tuple[str, ...]:
    ours, eager, compiled = m.fastest("ours"), m.fastest("eager"), m.fastest("compiled")
    ratios = [m.ratio("eager"), m.ratio("compiled")]
    share = m.copy_share(ours) if ours else None
    return (
        m.case.name,
        *(_seconds(t.median if t else None) for t in (ours, eager, compiled)),
        *("-" if r is None else f"{r:.2f}" for r in ratios),
        f"{m.gigabytes_per_second(ours):.3g}" if ours and m.case.traffic else "-",
        "-" if share is None else f"{share:.0%}",
    )


def _observed_cells(m: Measurement, t: Timing) -> tuple[str, ...]:
    ours, figures = m.fastest("ours"), t.figures
    return (
        t.name,
        _seconds(t.median),
        f"{_seconds(t.q1)} to {_seconds(t.q3)}",
        f"{t.median / ours.median:.2f}" if ours else "-",
        "-" if figures.convolutions is None else str(figures.convolutions),
        "-" if figures.passes is None else f"{figures.passes:.2f}",
        "-" if figures.peak_bytes is None else f"{figures.peak_bytes / 1e6:.1f}",
        "-" if figures.error is None else f"{figures.error:.1e}",
    )


def print_table(header: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> None:
    """As a rich table where rich is installed, in plain columns otherwise."""
    if importlib.util.find_spec("rich") is not None:
        from rich.console import Console
        from rich.table import Table

        table = Table()
        for i, title in enumerate(header):
            table.add_column(title, justify="left" if i == 0 else "right", no_wrap=True)
        for line in lines:
            table.add_row(*line)
        Console(width=None if sys.stdout.isatty() else 160).print(table)
        return
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]
    for line in [header, *lines]:
        print(
            "  ".join(
                f"{cell:>{w}}" if i else f"{cell:<{w}}" for i, (cell, w) in enumerate(zip(line, widths, strict=True))
            )
        )
