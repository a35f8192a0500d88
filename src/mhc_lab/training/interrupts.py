"""How a run is interrupted: the signals that a user or a scheduler sends become one exception."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed; nohup ignores it


class Killed(BaseException):
    """The user (or a scheduler) interrupts the run. Not an Exception: nobody on the way may take it for an error."""


class Stop:
    """Raises Killed at the first signal; later ones do not disturb the clearing up."""

    def __init__(self) -> None:
        self.raised = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.raised:
            self.raised = True
            raise Killed(f"interrupted by {signal.Signals(number).name}")


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP raise Killed inside, unless they were ignored.

    In the main thread only; another thread gets no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = Stop()
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
