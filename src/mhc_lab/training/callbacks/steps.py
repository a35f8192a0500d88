"""Every step's loss and gradient norm, fetched from the device and averaged over the ranks in batches of steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from torch import Tensor

from mhc_lab.config.schema import RunConfig
from mhc_lab.training.callbacks.divergence import Diverged
from mhc_lab.training.clock import StepClock
from mhc_lab.training.module import ResidualLM
from mhc_lab.training.optim import learning_rate_factor


@dataclass(frozen=True)
class Step:
    """One training step: loss in nats a token over all ranks, gradient norm before clipping, time in ms."""

    step: int  # 1 is the first
    loss: float
    grad_norm: float
    learning_rate: float
    ms: float


class StepWatcher(Callback):
    """A callback that looks at every step, some steps late."""

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        """Called on every rank, in order of steps, with finite losses only."""
        raise NotImplementedError


class StepLog(Callback):
    """Collects the steps and hands them to the StepWatchers every `log_every` steps and after the last one.

    Losses stay on the device until then, so that a GPU is not held up at every step. A loss that is not finite
    ends the run with Diverged, on all ranks alike: each sees the mean over the ranks.
    """

    def __init__(self, config: RunConfig, clock: StepClock) -> None:
        self.config = config
        self.clock = clock
        self._losses: list[Tensor] = []
        self._norms: list[Tensor] = []
        self._done = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.clock.lap()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, ResidualLM)
        self._losses.append(pl_module.last_loss)
        self._norms.append(pl_module.last_grad_norm)
        step, last = trainer.global_step, self.config.trainer.max_steps
        if step % self.config.trainer.log_every == 0 or step == last:
            self._hand_out(trainer)
        if step == last:
            trainer.should_stop = True  # validation follows, also where val_every does not divide the last step

    def flush(self, trainer: Trainer) -> None:
        """Hand out what waits, on all ranks at once: the run ends here, between two times of logging."""
        if self._losses:
            self._hand_out(trainer)

    def _hand_out(self, trainer: Trainer) -> None:
        means = torch.stack([torch.stack(self._losses).float(), torch.stack(self._norms).float()])
        if trainer.world_size > 1:
            # The ranks' slices score equally many tokens; the norm is the same on all of them.
            torch.distributed.all_reduce(means)
            means = means / trainer.world_size
        losses, norms = means.tolist()
        ms = 1000 * self.clock.lap() / len(losses)
        optim, max_steps = self.config.optim, self.config.trainer.max_steps
        steps: list[Step] = []
        for loss, norm in zip(losses, norms, strict=True):
            if not math.isfinite(loss):
                break
            rate = optim.learning_rate * learning_rate_factor(self._done, optim, max_steps)
            self._done += 1
            steps.append(Step(self._done, loss, norm, rate, ms))
        diverged = len(steps) < len(losses)
        self._losses, self._norms = [], []
        if steps:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                if isinstance(callback, StepWatcher):
                    callback.on_steps(trainer, steps)
        if diverged:
            raise Diverged(self._done + 1, "training loss", losses[len(steps)])
