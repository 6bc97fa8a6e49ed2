"""What a person watches: a rich progress bar on a terminal, otherwise a line every few seconds."""

from __future__ import annotations

import sys
import time
from typing import Protocol

from gan_fast.training.journal import Reading

_SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Told what happens, shows it."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def say(self, line: str) -> None: ...

    def update(self, reading: Reading, fraction: float, seconds_left: float) -> None: ...


def make(quiet: bool, shown: bool = True) -> Progress:
    """A bar where the output is a terminal and `quiet` is false; nothing at all unless `shown`."""
    if not shown:
        return Silent()
    return Lines() if quiet or not sys.stdout.isatty() else Bar()


def clock(seconds: float) -> str:
    """m:ss, or h:mm:ss."""
    whole = max(0, round(seconds))
    minutes, seconds_left = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds_left:02d}" if hours else f"{minutes}:{seconds_left:02d}"


class Silent:
    """Of the ranks that are not the first."""

    def start(self) -> None:
        pass

    def stop(self) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def update(self, reading: Reading, fraction: float, seconds_left: float) -> None:
        pass


class Lines(Silent):
    """For logs."""

    def __init__(self) -> None:
        self._last = 0.0

    def say(self, line: str) -> None:
        print(line, flush=True)

    def update(self, reading: Reading, fraction: float, seconds_left: float) -> None:
        now = time.monotonic()
        if now - self._last < _SECONDS_BETWEEN_LINES and fraction < 1:
            return
        self._last = now
        self.say(
            f"step {reading.step}  kimg {reading.images / 1000:.1f}  critic {reading.critic_loss:.3f}  "
            f"generator {reading.generator_loss:.3f}  {reading.images_per_second:.0f} img/s  "
            f"{100 * min(fraction, 1):.0f} %  left {clock(seconds_left)}"
        )


class Bar(Silent):
    """For terminals."""

    def __init__(self) -> None:
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.fields[kimg]:.0f} kimg"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("critic {task.fields[critic]:.3f}  generator {task.fields[generator]:.3f}"),
            TextColumn("{task.fields[speed]:.0f} img/s"),
            TextColumn("left {task.fields[left]}"),
        )
        self._task = self._bar.add_task("", total=1.0, kimg=0.0, critic=0.0, generator=0.0, speed=0.0, left="?")

    def start(self) -> None:
        self._bar.start()

    def stop(self) -> None:
        self._bar.stop()

    def say(self, line: str) -> None:
        self._bar.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def update(self, reading: Reading, fraction: float, seconds_left: float) -> None:
        self._bar.update(
            self._task,
            completed=min(fraction, 1.0),
            kimg=reading.images / 1000,
            critic=reading.critic_loss,
            generator=reading.generator_loss,
            speed=reading.images_per_second,
            left=clock(seconds_left),
        )
