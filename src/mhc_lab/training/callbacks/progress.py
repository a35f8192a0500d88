"""How a run shows itself: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time

from lightning import LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mhc_lab.training.callbacks.steps import Step, StepWatcher

PLAIN_SECONDS = 5.0  # between plain lines


class ProgressDisplay(StepWatcher):
    """Shows step, loss and time a step, on rank 0."""

    def __init__(self, title: str, max_steps: int) -> None:
        self.title = title
        self.max_steps = max_steps
        self.console = Console()
        self._bar: Progress | None = None
        self._last_line = 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.console.is_terminal:
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[state]}"), console=self.console)
            self._task = self._bar.add_task(self.title, total=self.max_steps, state="")
            self._bar.start()

    def on_steps(self, trainer: Trainer, steps: list[Step]) -> None:
        if not trainer.is_global_zero:
            return
        now = steps[-1]
        state = f"loss {now.loss:.4f}  {now.ms:.0f} ms/step"
        if self._bar is not None:
            self._bar.update(self._task, completed=now.step, state=state)
        elif time.monotonic() - self._last_line > PLAIN_SECONDS or now.step == self.max_steps:
            self._last_line = time.monotonic()
            self.console.print(f"{self.title}  step {now.step}/{self.max_steps}  {state}", highlight=False)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
