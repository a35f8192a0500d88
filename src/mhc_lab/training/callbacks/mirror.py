"""Sends a running run to the tracking server now and then."""

from __future__ import annotations

import time

from lightning import Trainer

from mhc_lab.run_folder import RunFolder
from mhc_lab.tracking import mlflow
from mhc_lab.training.callbacks.steps import Step, StepWatcher
from mhc_lab.training.clock import StepClock

SECONDS = 15.0  # between two pushes


class Mirror(StepWatcher):
    """Pushes the run folder at most every 15 s; the last push, with the record, is the run's own."""

    def __init__(self, folder: RunFolder, clock: StepClock) -> None:
        self.folder = folder
        self.clock = clock
        self._last = time.monotonic()

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        if not trainer.is_global_zero or time.monotonic() - self._last < SECONDS:
            return
        with self.clock.pause():
            mlflow.push(self.folder)
        self._last = time.monotonic()
