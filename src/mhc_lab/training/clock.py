"""The time that training steps take, without what is measured or sent in between."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch


class StepClock:
    """Runs while training steps run; `pause()` takes probes, validation and mirroring out of it.

    `accelerator` is "cpu" or "gpu" (the current one).
    """

    def __init__(self, accelerator: str) -> None:
        self.cuda = accelerator == "gpu"
        self._start = self.now()
        self._paused = 0.0

    def now(self) -> float:
        """Seconds, when the device has done all it was given."""
        if self.cuda:
            torch.cuda.synchronize()
        return time.perf_counter()

    def lap(self) -> float:
        """Seconds of training since the last lap."""
        now = self.now()
        seconds = now - self._start - self._paused
        self._start, self._paused = now, 0.0
        return seconds

    @contextmanager
    def pause(self) -> Iterator[None]:
        before = self.now()
        try:
            yield
        finally:
            self._paused += self.now() - before
