"""A loss that is not a finite number ends a run; that is a result, not a failure."""

from __future__ import annotations

import math

from lightning import Callback, LightningModule, Trainer

from mhc_lab.training.module import ResidualLM


class Diverged(Exception):
    """Training cannot go on: `step` is the first one whose loss is NaN or infinite."""

    def __init__(self, step: int, what: str, value: float) -> None:
        super().__init__(f"{what} {'NaN' if math.isnan(value) else 'infinite'} at step {step}")
        self.step = step


class Divergence(Callback):
    """Watches the validation loss; StepLog watches the training loss. All ranks hold the same value of both."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ResidualLM)
        if not math.isfinite(pl_module.val_loss):
            raise Diverged(trainer.global_step, "validation loss", pl_module.val_loss)
