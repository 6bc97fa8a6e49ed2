"""Ctrl-C and SIGTERM as a request: finish the step, save, stop. A second Ctrl-C stops at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class Request:
    """Whether the process was asked to stop."""

    def __init__(self) -> None:
        self.asked = False

    def receive(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True


@contextlib.contextmanager
def interrupts() -> Iterator[Request]:
    """Inside the block the first SIGINT or SIGTERM sets `asked` instead of ending the process."""
    request = Request()
    # Only the main thread may set handlers; a trainer in another thread leaves signals to its owner.
    numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.signal(number, request.receive) for number in numbers}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
