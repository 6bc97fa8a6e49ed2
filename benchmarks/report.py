"""`python -m benchmarks.report run.json [--out folder]`: a Markdown table and a chart from a record.

Reads what `gan-fast bench --json` writes and what `pytest benchmarks/ --benchmark-json` writes; nothing of gan_fast is
imported, so a record can be reported anywhere.
"""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]
COLUMNS = "| case | gan_fast | eager | torch.compile | x eager | x compile | GB/s | share of copy |"
OBSERVED_COLUMNS = "| case | contender | time | over gan_fast's | convolutions | passes | peak MB | error |"


def load(path: Path) -> tuple[dict[str, Any], list[Row]]:
    """(conditions, one row a contender) of either kind of record."""
    data = json.loads(path.read_text())
    if "results" in data:
        return data["environment"], data["results"]
    if "benchmarks" not in data:
        raise SystemExit(f"{path} is neither a record of `gan-fast bench --json` nor of pytest-benchmark")
    rows = []
    for b in data["benchmarks"]:
        stats = b["stats"]
        rows.append({**b["extra_info"], "median": stats["median"], "q1": stats["q1"], "q3": stats["q3"]})
    return data["machine_info"]["gan_fast_environment"], rows


def by_case(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each case, in the record's order."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["case"], []).append(row)
    return found


def fastest(rows: Sequence[Row], role: str) -> Row | None:
    """The row of this role with the smallest median."""
    return min((r for r in rows if r["role"] == role), key=lambda r: r["median"], default=None)


def summary(name: str, rows: Sequence[Row]) -> Row:
    """One case in one line: times in seconds, ratios of ours, GB/s and share of a copy of as many bytes."""
    ours, eager, compiled, copy = (fastest(rows, role) for role in ("ours", "eager", "compiled", "copy"))
    if ours is None:
        raise SystemExit(f"the record holds no gan_fast time for {name}")
    t = ours["median"]
    return {
        "case": name,
        "ours": t,
        "quartiles": (ours["q1"], ours["q3"]),
        "eager": eager and eager["median"],
        "compiled": compiled and compiled["median"],
        "x_eager": eager and eager["median"] / t,
        "x_compiled": compiled and compiled["median"] / t,
        "gigabytes_per_second": ours["bytes"] / t / 1e9 if ours["bytes"] else None,
        "share_of_copy": copy and copy["median"] / t,
    }


def _seconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value * 1e6:.1f} us" if value < 1e-3 else f"{value * 1e3:.2f} ms" if value < 1 else f"{value:.2f} s"


def conditions_line(conditions: dict[str, Any]) -> str:
    """The conditions a reader needs beside any number."""
    line = (
        f"{conditions['device']}, {conditions['threads']} threads, torch {conditions['torch']}, Python "
        f"{conditions['python']}, gan_fast {conditions['commit']}, {conditions['date']}"
    )
    copy = conditions.get("copy_gigabytes_per_second")
    return line + (f", copy {copy:.1f} GB/s" if copy else "")


def markdown(conditions: dict[str, Any], cases: Sequence[Row]) -> str:
    """The table; medians, with ours' quartiles in brackets."""
    lines = [conditions_line(conditions), "", COLUMNS, "|---|" + "---:|" * 7]
    for c in cases:
        low, high = (_seconds(x) for x in c["quartiles"])
        ratios = ["-" if c[k] is None else f"{c[k]:.2f}" for k in ("x_eager", "x_compiled")]
        rate = "-" if c["gigabytes_per_second"] is None else f"{c['gigabytes_per_second']:.3g}"
        share = "-" if c["share_of_copy"] is None else f"{c['share_of_copy']:.0%}"
        cells = [c["case"], f"{_seconds(c['ours'])} ({low} to {high})", _seconds(c["eager"]), _seconds(c["compiled"])]
        lines.append("| " + " | ".join([*cells, *ratios, rate, share]) + " |")
    return "\n".join(lines) + "\n"


def observed(rows: Sequence[Row]) -> str:
    """One line a contender of the cases whose convolutions were counted; nothing where there is none.

    Passes are convolution flops over those of one forward of the batch, the peak is of tensors, the error that of the
    worst parameter's gradient against float64, median over seeds.
    """
    lines = []
    for name, group in by_case([r for r in rows if "convolutions" in r]).items():
        ours = fastest(group, "ours")
        for r in group:
            time = f"{_seconds(r['median'])} ({_seconds(r['q1'])} to {_seconds(r['q3'])})"
            ratio = f"{r['median'] / ours['median']:.2f}" if ours else "-"
            figures = [
                str(r["convolutions"]),
                f"{r['passes']:.2f}",
                f"{r['peak_bytes'] / 1e6:.1f}",
                f"{r['error']:.1e}",
            ]
            lines.append("| " + " | ".join([name, r["contender"], time, ratio, *figures]) + " |")
    return "\n".join(["", OBSERVED_COLUMNS, "|---|---|" + "---:|" * 6, *lines, ""]) if lines else ""


def chart(conditions: dict[str, Any], cases: Sequence[Row], path: Path) -> None:
    """Bars of the ratio to the fastest eager and to the compiled baseline, a line at 1, GB/s written beside."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 1.2 + 0.42 * len(cases)))
    for i, c in enumerate(reversed(cases)):
        for offset, key, colour in ((0.2, "x_eager", "#2a6f97"), (-0.2, "x_compiled", "#e09f3e")):
            if c[key] is not None:
                axes.barh(i + offset, c[key], height=0.38, color=colour)
        rate = c["gigabytes_per_second"]
        share = "" if c["share_of_copy"] is None else f", {c['share_of_copy']:.0%} of copy"
        longest = max(c["x_eager"] or 0.0, c["x_compiled"] or 0.0)
        axes.text(
            longest + 0.05,
            i,
            f"{_seconds(c['ours'])}" + (f", {rate:.3g} GB/s{share}" if rate else ""),
            va="center",
            fontsize=7,
        )
    axes.set_yticks(range(len(cases)), [c["case"] for c in reversed(cases)], fontsize=8)
    axes.axvline(1.0, color="black", linewidth=0.8)
    axes.margins(x=0.35)
    axes.set_xlabel("times faster than the fastest eager baseline (blue) and than torch.compile (orange)")
    axes.set_title("\n".join(textwrap.wrap(conditions_line(conditions), 110)), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def passes_chart(conditions: dict[str, Any], rows: Sequence[Row], path: Path) -> None:
    """Bars of the convolution passes of every contender, its time and convolutions beside; one panel a case."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    groups = by_case(rows)
    figure, panels = plt.subplots(len(groups), 1, figsize=(9, 2.6 * len(groups) + 0.4), squeeze=False)
    for axes, (name, group) in zip(panels[:, 0], groups.items(), strict=True):
        ordered = sorted(group, key=lambda r: r["passes"], reverse=True)
        colours = {"ours": "#2a6f97", "no penalty": "#a8b8c0"}
        axes.barh(
            range(len(ordered)),
            [r["passes"] for r in ordered],
            color=[colours.get(r["role"], "#e09f3e") for r in ordered],
        )
        for i, r in enumerate(ordered):
            axes.text(
                r["passes"] + 0.1,
                i,
                f"{_seconds(r['median'])}, {r['convolutions']} convolutions",
                va="center",
                fontsize=7,
            )
        axes.set_yticks(range(len(ordered)), [r["contender"] for r in ordered], fontsize=8)
        axes.set_title(name, fontsize=8)
        axes.margins(x=0.35)
    panels[-1, 0].set_xlabel("passes over the batch: convolution flops over those of one forward")
    figure.suptitle("\n".join(textwrap.wrap(conditions_line(conditions), 110)), fontsize=7)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    """Prints the table and writes `<record>.md`, `<record>.png` and, of counted convolutions, `<record>-passes.png`."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("record", type=Path)
    parser.add_argument("--out", type=Path, help="folder for the table and the chart; the record's own by default")
    options = parser.parse_args(argv)
    conditions, rows = load(options.record)
    cases = [summary(name, group) for name, group in by_case(rows).items()]
    out = options.out or options.record.parent
    out.mkdir(parents=True, exist_ok=True)
    table = markdown(conditions, cases) + observed(rows)
    (out / f"{options.record.stem}.md").write_text(table)
    chart(conditions, cases, out / f"{options.record.stem}.png")
    counted = [
        r for r in rows if "convolutions" in r and "/r1_r2/" in r["case"] and r["case"].endswith("channels_last")
    ]
    if counted:
        passes_chart(conditions, counted, out / f"{options.record.stem}-passes.png")
    print(table, end="")


if __name__ == "__main__":
    main()
