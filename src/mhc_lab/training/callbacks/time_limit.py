"""trainer.time_limit: a run that takes longer is ended, and recorded as failed."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, LightningModule, Trainer


class OutOfTime(Exception):
    """The run has had its time; the message says how far it came."""


class TimeLimit(Callback):
    """Looks at the clock after each step. `seconds` run from here on; compiling and data count."""

    def __init__(self, seconds: int, max_steps: int) -> None:
        self.seconds = seconds
        self.max_steps = max_steps
        self.deadline = time.monotonic() + seconds

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if time.monotonic() > self.deadline and trainer.global_step < self.max_steps:
            raise OutOfTime(
                f"over trainer.time_limit={self.seconds} s at step {trainer.global_step} of {self.max_steps}"
            )
