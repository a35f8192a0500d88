"""Metrics appended to metrics.jsonl as the run goes, and their summary for the record."""

from __future__ import annotations

import json
import math
import statistics
from collections import deque
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer

from mhc_lab.training.callbacks.steps import Step, StepWatcher
from mhc_lab.training.clock import StepClock
from mhc_lab.training.module import ResidualLM

TRAIN_LOSS_STEPS = 50  # the record's train_loss is the mean over the last steps: one batch is noise


def append_line(file: Path, values: dict[str, Any]) -> None:
    """One JSON object on a line of its own. Values that are not finite numbers are left out: JSON has none."""
    finite = {
        key: value for key, value in values.items() if not (isinstance(value, float) and not math.isfinite(value))
    }
    with file.open("a") as out:
        out.write(json.dumps(finite) + "\n")


class Metrics(StepWatcher):
    """Writes a line every `log_every` steps, with means since the last line, and one at every validation.

    `bytes_data`: a token is a byte, so that bits per byte = nats / ln 2.
    """

    def __init__(self, file: Path, clock: StepClock, *, bytes_data: bool) -> None:
        self.file = file
        self.clock = clock
        self.bytes_data = bytes_data
        self.steps = 0
        self.val_loss: float | None = None
        self._losses: deque[float] = deque(maxlen=TRAIN_LOSS_STEPS)
        self._laps: list[float] = []

    @property
    def train_loss(self) -> float | None:
        return statistics.fmean(self._losses) if self._losses else None

    @property
    def bits_per_byte(self) -> float | None:
        return self.val_loss / math.log(2) if self.bytes_data and self.val_loss is not None else None

    @property
    def ms_per_step(self) -> float | None:
        """Median over the lines; the first one, which warms up, counts only where it is alone."""
        return statistics.median(self._laps[1:] or self._laps) if self._laps else None

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        self.steps = steps[-1].step
        self._losses.extend(step.loss for step in steps)
        self._laps.append(steps[-1].ms)
        if trainer.is_global_zero:
            line = {
                "step": self.steps,
                "train_loss": statistics.fmean(step.loss for step in steps),
                "grad_norm": statistics.fmean(step.grad_norm for step in steps),
                "learning_rate": steps[-1].learning_rate,
                "ms": steps[-1].ms,
            }
            append_line(self.file, line)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._pause = self.clock.pause()
        self._pause.__enter__()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ResidualLM)
        self._pause.__exit__(None, None, None)
        if not math.isfinite(pl_module.val_loss):
            return  # Divergence ends the run
        self.val_loss = pl_module.val_loss
        if trainer.is_global_zero:
            line = {"step": trainer.global_step, "val_loss": self.val_loss}
            append_line(self.file, line | ({"bits_per_byte": self.bits_per_byte} if self.bytes_data else {}))
