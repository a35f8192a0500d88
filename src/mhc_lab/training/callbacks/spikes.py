"""Loss spikes."""

from __future__ import annotations

import statistics
from collections import deque

from lightning import Trainer

from mhc_lab.training.callbacks.steps import Step, StepWatcher

WINDOW = 50
THRESHOLD = 6 * 1.4826  # in median absolute deviations; 1.4826 MAD estimates a normal's standard deviation


class SpikeCounter:
    """Counts the losses that exceed the median of the 50 before them by 6 x 1.4826 MAD.

    The first 50 losses are not judged, and none after a window whose MAD is 0 (at least half of it one value: it has
    no scale). A spike enters the window of the losses after it.
    """

    def __init__(self) -> None:
        self.count = 0
        self._window: deque[float] = deque(maxlen=WINDOW)

    def add(self, loss: float) -> bool:
        """Take the next step's loss; whether it is a spike."""
        spike = False
        if len(self._window) == WINDOW:
            median = statistics.median(self._window)
            deviation = statistics.median(abs(value - median) for value in self._window)
            spike = deviation > 0 and loss - median > THRESHOLD * deviation
        self._window.append(loss)
        self.count += spike
        return spike


class Spikes(StepWatcher):
    """Counts the spikes of the training loss."""

    def __init__(self) -> None:
        self.counter = SpikeCounter()

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        for step in steps:
            self.counter.add(step.loss)
