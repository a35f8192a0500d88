"""A run's progress: it moves with the steps, fits the terminal, and always says how long it will take."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from mhc_lab.training.callbacks import progress
from mhc_lab.training.callbacks.progress import ProgressDisplay
from mhc_lab.training.callbacks.steps import Step


class Clock:
    now = 100.0

    def monotonic(self) -> float:
        return self.now


def display(monkeypatch: pytest.MonkeyPatch, *, width: int, terminal: bool) -> tuple[ProgressDisplay, Clock, Any]:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None, legacy_windows=False)
    return ProgressDisplay("mhc-7dcf92a22b66", 4000, console), clock, out


def run_steps(shown: ProgressDisplay, clock: Clock, count: int, seconds: float) -> None:
    trainer: Any = SimpleNamespace(is_global_zero=True, global_step=0)
    module: Any = None
    shown.on_train_start(trainer, module)
    for step in range(1, count + 1):
        clock.now += seconds
        trainer.global_step = step
        if step % 500 == 0:
            shown.on_steps(trainer, [Step(step, 2.654, 1.0, 0.1, 1000 * seconds)])
        shown.on_train_batch_end(trainer, module, None, None, step)
    shown.on_train_end(trainer, module)


def test_plain_lines_come_by_time_with_what_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, clock, out = display(monkeypatch, width=80, terminal=False)
    run_steps(shown, clock, 20, seconds=6.0)  # nothing is logged before step 500
    lines = out.getvalue().splitlines()
    assert len(lines) == 20
    assert lines[9] == "mhc-7dcf92a22b66  step 10/4000  23940 s left"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_bar_fits_and_says_all(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    shown, clock, out = display(monkeypatch, width=width, terminal=True)
    run_steps(shown, clock, 510, seconds=6.0)
    last = out.getvalue().split("\r")[-1].splitlines()[0].replace("\x1b[2K", "")
    assert "mhc-7dcf92a22b66" in last
    assert "510/4000" in last
    assert "loss 2.6540" in last
    assert len(last.replace("\x1b[?25h", "").rstrip()) <= width
