"""Asks the worker at every validation whether the run is still worth its time; all ranks stop at the same step."""

from __future__ import annotations

import time

from lightning import Callback, LightningModule, Trainer

from mhc_lab.run_folder import RunFolder
from mhc_lab.training.callbacks.steps import StepLog
from mhc_lab.training.clock import StepClock
from mhc_lab.training.module import ResidualLM

_POLL_SECONDS = 0.01


class Pruned(Exception):
    """The worker's pruner ends the run: others are ahead at this step."""

    def __init__(self, step: int, val_loss: float) -> None:
        super().__init__(f"pruned at step {step} with validation loss {val_loss:.4f}")
        self.step = step


class Pruning(Callback):
    """Rank 0 puts the question into the run folder and waits for the answer, which all ranks get.

    The worker that started the run answers within a poll, and ends the run's processes when it dies itself: there is
    always somebody to wait for. The run needs neither Optuna nor its database.
    """

    def __init__(self, folder: RunFolder, clock: StepClock, steps: StepLog) -> None:
        self.folder = folder
        self.clock = clock
        self.steps = steps

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, ResidualLM)
        step = trainer.global_step
        if step >= pl_module.config.trainer.max_steps:
            return
        with self.clock.pause():
            stop = self._ask(step, pl_module.val_loss) if trainer.is_global_zero else False
            stop = trainer.strategy.broadcast(stop, src=0)
        if stop:
            self.steps.flush(trainer)
            raise Pruned(step, pl_module.val_loss)

    def _ask(self, step: int, val_loss: float) -> bool:
        self.folder.ask(step, val_loss)
        answer = self.folder.verdict(step)
        while answer is None:
            time.sleep(_POLL_SECONDS)
            answer = self.folder.verdict(step)
        return answer
