"""What a process keeps to itself: its threads, and how it is interrupted."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from lightning import Callback, LightningModule, Trainer

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # SIGHUP: the terminal was closed; nohup ignores it


class Killed(BaseException):
    """The user (or a scheduler) interrupts the run. Not an Exception: nobody on the way may take it for an error."""


class _Stop:
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
    stop = _Stop()
    heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, stop) for number in heard}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class ProcessSettings(Callback):
    """Takes back what Lightning sets as a fit starts.

    Its SIGTERM handler talks to the other ranks from inside the signal and waits for the end of the step; its
    launcher divides the threads by its own rule.
    """

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._handler = signal.getsignal(signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        torch.set_num_threads(self.threads)
        if isinstance(self._handler, _Stop):
            signal.signal(signal.SIGTERM, self._handler)
