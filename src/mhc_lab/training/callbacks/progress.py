"""How a run shows itself: a bar on a terminal, plain lines elsewhere. Both move by time, whatever is logged when."""

from __future__ import annotations

import time
from typing import Any

from lightning import LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column

from mhc_lab.training.callbacks.steps import Step, StepWatcher

PLAIN_SECONDS = 5.0  # between plain lines
BAR_SECONDS = 0.2  # between moves of the bar
MEMORY_SECONDS = 3600.0  # of past steps that the remaining time rests on
WIDEST_BAR = 40


class ProgressDisplay(StepWatcher):
    """Shows step, loss, time a step and time left, on rank 0."""

    def __init__(self, title: str, max_steps: int, console: Console | None = None) -> None:
        self.title = title
        self.max_steps = max_steps
        self.console = console or Console()
        self._bar: Progress | None = None
        self._loss = ""
        self._pace = ""
        self._shown = 0.0
        self._first: tuple[float, int] | None = None  # when the first step was done: it warms up

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.console.is_terminal:
            self._bar = self._new_bar()
            self._task = self._bar.add_task(self.title, total=self.max_steps, state="")
            self._bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Steps are counted without looking at a loss: that would hold up a GPU."""
        if trainer.is_global_zero:
            self._show(trainer.global_step)

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        now = steps[-1]
        self._loss = f"loss {now.loss:.4f}"
        self._pace = f"{now.ms:.0f} ms/step"
        if trainer.is_global_zero and now.step == self.max_steps:
            self._show(now.step, last=True)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._task, state="validating")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _show(self, step: int, *, last: bool = False) -> None:
        now = time.monotonic()
        if self._first is None:
            self._first = (now, step)
        if now - self._shown < (PLAIN_SECONDS if self._bar is None else BAR_SECONDS) and not last:
            return
        self._shown = now
        if self._bar is not None:
            state = self._loss if self.console.width < 80 else f"{self._loss}  {self._pace}"
            self._bar.update(self._task, completed=step, state=state)
            return
        told = [f"step {step}/{self.max_steps}", self._loss, self._pace, "" if last else self._left(now, step)]
        self.console.print("  ".join([self.title, *filter(None, told)]), highlight=False, soft_wrap=True)

    def _left(self, now: float, step: int) -> str:
        assert self._first is not None
        began, first = self._first
        if step == first:
            return ""
        return f"{(now - began) / (step - first) * (self.max_steps - step):.0f} s left"

    def _new_bar(self) -> Progress:
        """Columns that are never cut; the bar takes what they leave of the terminal's width."""
        count = 2 * len(str(self.max_steps)) + 1
        others = len(self.title) + count + len("-:--:--") + len("loss 0.0000") + 4
        whole = Column(no_wrap=True)
        return Progress(
            TextColumn("{task.description}", table_column=whole, markup=False),
            BarColumn(bar_width=max(4, min(WIDEST_BAR, self.console.width - others))),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TimeRemainingColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
            speed_estimate_period=MEMORY_SECONDS,
        )

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
