"""What a run leaves behind for people: log.jsonl, evaluations.jsonl, warnings.jsonl, TensorBoard and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from gan_fast.training import sounds
from gan_fast.training.checkpoint import write_file
from gan_fast.training.folder import RunFolder
from gan_fast.training.pictures import grid, plot, save_curves, save_grid, save_png


class Reading(NamedTuple):
    """Means over the steps since the last reading, and where the run was."""

    step: int
    images: int
    seconds: float
    images_per_second: float
    critic_loss: float
    generator_loss: float
    real_mean: float
    fake_mean: float
    real_sign_mean: float
    fake_sign_mean: float
    # What the recipe's own step tells, by name.
    more: dict[str, float] = {}  # noqa: RUF012 (a NamedTuple's default, never written to)


class Journal:
    """Opened at `step`: readings that an earlier sitting wrote beyond it are dropped, they will be made again."""

    def __init__(self, folder: RunFolder, step: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.folder = folder
        self.readings = [reading for reading in _read(folder) if reading.step <= step]
        write_file(folder.log, "".join(map(_line, self.readings)).encode())
        self.judged_steps: set[int] = set()
        if folder.evaluations.exists():
            judged = _judged_until(folder, step)
            self.judged_steps = set(judged)
            write_file(folder.evaluations, "".join(judged.values()).encode())
        kept = [entry for entry in read_warnings(folder) if entry["step"] <= step]
        if folder.warnings.exists():
            write_file(folder.warnings, "".join(json.dumps(entry) + "\n" for entry in kept).encode())
        self._board = SummaryWriter(str(folder.tensorboard), purge_step=step + 1)

    def close(self) -> None:
        self._board.close()

    def add(self, reading: Reading) -> None:
        self.readings.append(reading)
        with open(self.folder.log, "a", encoding="utf-8") as log:
            log.write(_line(reading))
        for name, value in _flat(reading).items():
            if name not in ("step", "seconds"):
                self._board.add_scalar(name, value, reading.step)

    def judged(self, step: int, images: int, figures: dict[str, float]) -> None:
        """Write the figures of an evaluation."""
        with open(self.folder.evaluations, "a", encoding="utf-8") as log:
            log.write(json.dumps({"step": step, "images": images, **figures}) + "\n")
        for name, value in figures.items():
            self._board.add_scalar(f"quality/{name}", value, step)

    def warn(
        self,
        kind: str,
        message: str,
        figures: dict[str, float],
        *,
        step: int,
        images: int,
        samples: Tensor | None = None,
        real: Tensor | None = None,
    ) -> Path:
        """Keep a warning with its figures and, where given, the samples of that step (as in `snapshot`); its file."""
        entry: dict[str, Any] = {"step": step, "images": images, "kind": kind, "message": message}
        entry["figures"] = {name: value if math.isfinite(value) else str(value) for name, value in figures.items()}
        if samples is not None:
            picture = self.folder.warning_pictures / f"{step:09d}-{kind.replace(' ', '-')}.png"
            picture.parent.mkdir(parents=True, exist_ok=True)
            if samples.ndim == 4:
                save_grid(picture, samples)
            else:
                save_png(picture, plot(samples, real))
            entry["samples"] = picture.relative_to(self.folder.path).as_posix()
        with open(self.folder.warnings, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
        return self.folder.warnings

    def snapshot(
        self,
        step: int,
        samples: Tensor,
        real: Tensor | None = None,
        figures: Mapping[str, float] | None = None,
        in_row: int | None = None,
        rate: int = 0,
    ) -> None:
        """Refresh the pictures with samples: images `[N, C, H, W]` in [-1, 1], points `[N, D]` over real ones, or
        sounds `[N, 1, T]` of `rate` samples per second below real ones."""
        for name, value in (figures or {}).items():
            self._board.add_scalar(name, value, step)
        if samples.ndim == 4:
            picture = grid(samples, in_row)
            save_grid(self.folder.samples, samples, in_row)
        elif samples.ndim == 3:
            picture = grid(sounds.snapshot(self.folder.samples, samples, rate, real))
        else:
            picture = plot(samples, real)
            save_png(self.folder.samples, picture)
        self._board.add_image("samples", picture, step)
        self._board.flush()
        if self.readings:
            columns = dict(zip(Reading._fields, zip(*self.readings, strict=True), strict=False))
            save_curves(
                self.folder.losses,
                [images / 1000 for images in columns["images"]],
                {
                    "loss": {"critic": columns["critic_loss"], "generator": columns["generator_loss"]},
                    "mean logit": {"real": columns["real_mean"], "fake": columns["fake_mean"]},
                },
            )


def _line(reading: Reading) -> str:
    return json.dumps({k: round(v, 6) for k, v in _flat(reading).items()}) + "\n"


def _flat(reading: Reading) -> dict[str, float]:
    values = reading._asdict()
    more = values.pop("more")
    return {**values, **more}


def read_warnings(folder: RunFolder) -> list[dict[str, Any]]:
    """The run's warnings, oldest first."""
    if not folder.warnings.exists():
        return []
    entries = []
    for line in folder.warnings.read_text(encoding="utf-8").splitlines():
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError:
            # The last line of a killed run may be half written.
            break
    return entries


def _read(folder: RunFolder) -> list[Reading]:
    if not folder.log.exists():
        return []
    readings = []
    for line in folder.log.read_text(encoding="utf-8").splitlines():
        try:
            values = json.loads(line)
            own = {name: values.pop(name) for name in Reading._fields if name in values}
            readings.append(Reading(**own, more=values))
        except (json.JSONDecodeError, TypeError):
            # The last line of a killed run may be half written.
            break
    return readings


def _judged_until(folder: RunFolder, step: int) -> dict[int, str]:
    """The lines of evaluations up to `step`, by step."""
    kept = {}
    for line in folder.evaluations.read_text(encoding="utf-8").splitlines():
        try:
            at = int(json.loads(line)["step"])
        except (json.JSONDecodeError, KeyError, TypeError):
            break
        if at <= step:
            kept[at] = line + "\n"
    return kept
