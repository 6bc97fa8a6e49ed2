"""All recipes on Fashion-MNIST under one budget: trains them, and writes pictures, figures and the table of docs.

    python benchmarks/gallery.py --seconds 240 --jobs 2       # each on one thread, two at a time
    python benchmarks/gallery.py --only dcgan cgan            # some of them; the others keep their figures

For each recipe it runs the command that the table prints, and nothing else. Figures are those of the run's own report,
and go to `benchmarks/results/gallery.json`; pictures are the first rows of its `samples.png`, and go to
`docs/img/gallery`; the table goes to the place marked in `docs/gallery.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from gan_fast.bench.record import commit, device_name

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "benchmarks" / "results" / "gallery.json"
PAGE = ROOT / "docs" / "gallery.md"
PICTURES = ROOT / "docs" / "img" / "gallery"
BEGIN, END = "<!-- table: benchmarks/gallery.py -->", "<!-- end of table -->"

# What is added to `gan-fast train --recipe NAME --data fashion-mnist`.
RECIPES = {
    "gan": "",
    "dcgan": "",
    "cgan": "",
    "wgan": "",
    "wgan_gp": "",
    "r3gan": "",
    "diffusion_gan": "",
    "ddgan": "",
    "stylegan2": "--config tiny",
}
ROWS = 4


def command(name: str, seconds: int) -> str:
    own = f" {RECIPES[name]}" if RECIPES[name] else ""
    return f"gan-fast train --recipe {name} --data fashion-mnist{own} --threads 1 --seconds {seconds}"


def run(name: str, seconds: int, folder: Path) -> dict[str, Any]:
    """Train, and read what the run says of itself."""
    out, line, start = folder / name, command(name, seconds), time.monotonic()
    arguments = [sys.executable, "-m", "gan_fast", *line.split()[1:], "--out", str(out), "--quiet"]
    with (folder / f"{name}.log").open("w") as log:
        subprocess.run(
            arguments, check=True, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"}
        )
    report = json.loads((out / "quality.json").read_text())
    state = json.loads((out / (out / "latest").read_text().strip() / "state.json").read_text())
    picture(out / "samples.png", PICTURES / f"{name}.png")
    agreement = report["agreement"]
    return {
        "command": line,
        "kimg": state["counters"]["images"] / 1000,
        "steps": state["counters"]["steps"],
        "precision": state["precision"],
        "seconds_in_all": time.monotonic() - start,
        "proxy_frechet": report["proxy_frechet"],
        "gaussian": report["gaussian_proxy_frechet"],
        "real": report["real_against_real"],
        "untrained": report["untrained_proxy_frechet"],
        "test_accuracy": report["test_accuracy"],
        "rarest": min(report["coverage"].items(), key=lambda item: item[1]),
        "replay": report["replay"]["ratio"],
        "agreement": agreement and agreement["share"],
    }


def picture(samples: Path, to: Path) -> None:
    """The first rows of a grid of 10 x 10, in 64 colours or greys."""
    to.parent.mkdir(parents=True, exist_ok=True)
    with Image.open(samples) as image:
        height = round((image.height + 1) * ROWS / 10) - 1
        image.crop((0, 0, image.width, height)).quantize(64).save(to, optimize=True)


def table(record: dict[str, Any]) -> str:
    """Best first."""
    runs = sorted(record["runs"].items(), key=lambda item: item[1]["proxy_frechet"])
    any_run = runs[0][1]
    lines = [
        f"{record['conditions']}. Gaussian of the training pixels {any_run['gaussian']:.1f}, held-out images "
        f"{any_run['real']:.2f}, classifier right on {any_run['test_accuracy']:.1%} of held-out images.",
        "",
        "| recipe | proxy Frechet | of the Gaussian's | rarest class | replay ratio | kimg | class agreement |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, r in runs:
        agreement = f"{r['agreement']:.1%}" if r["agreement"] is not None else ""
        lines.append(
            f"| `{name}` | {r['proxy_frechet']:.1f} | {r['proxy_frechet'] / r['gaussian']:.2f} | {r['rarest'][0]} "
            f"{r['rarest'][1]:.1%} | {r['replay']:.2f} | {r['kimg']:,.0f} | {agreement} |"
        )
    for name, r in runs:
        lines += ["", f"![{name} on Fashion-MNIST](img/gallery/{name}.png)", "", f"    {r['command']}"]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=240, help="training time of each")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="only these")
    parser.add_argument("--jobs", type=int, default=1, help="how many at a time, one thread each")
    parser.add_argument("--out", type=Path, default=Path("runs") / "gallery", help="folder of the runs")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    record = json.loads(RECORD.read_text()) if RECORD.is_file() else {"runs": {}}
    processor = device_name(torch.device("cpu"))
    record["conditions"] = (
        f"{options.seconds} seconds of training, one thread each, {options.jobs} at a time on {processor}, "
        f"gan_fast {commit()}, {time.strftime('%Y-%m-%d')}"
    )
    with ThreadPoolExecutor(options.jobs) as pool:
        pending = {name: pool.submit(run, name, options.seconds, options.out) for name in options.only}
        for name, job in pending.items():
            record["runs"][name] = job.result()
            print(name, json.dumps(record["runs"][name]), flush=True)
            RECORD.write_text(json.dumps(record, indent=1) + "\n")
    text = PAGE.read_text()
    place = re.escape(BEGIN) + ".*?" + re.escape(END)
    PAGE.write_text(re.sub(place, lambda _: f"{BEGIN}\n\n{table(record)}\n\n{END}", text, flags=re.DOTALL))


if __name__ == "__main__":
    main()
