"""The gradient norm before clipping, at the last step and at its largest."""

from __future__ import annotations

import math

from lightning import Trainer

from mhc_lab.training.callbacks.steps import Step, StepWatcher


class GradientNorms(StepWatcher):
    """`last` and `largest`, None before the first step; an overflowed norm counts as neither."""

    def __init__(self) -> None:
        self.last: float | None = None
        self.largest: float | None = None

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        for norm in (step.grad_norm for step in steps if math.isfinite(step.grad_norm)):
            self.last = norm
            self.largest = norm if self.largest is None else max(self.largest, norm)
