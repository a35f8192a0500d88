"""What is seen of a study while it runs: a bar on a terminal, a plain line a cell elsewhere."""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from mhc_lab.run_folder import RunFolder
from mhc_lab.study.spec import Cell
from mhc_lab.units import duration

_TAIL = 4096  # bytes that hold the last line of a log
_STEP = re.compile(rb'\{"step": (\d{1,15})\D')


class Display:
    """Counts the cells that end. `done` of the `total` are there from an earlier command."""

    def __init__(self, study: str, total: int, done: int, console: Console | None = None) -> None:
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._total, self._done, self._failed = total, done, 0
        others = len(study) + 2 * len(str(total)) + 1 + len("8 running 0:00:00 about 12 min left") + 6
        self._progress = Progress(
            TextColumn(study, markup=False, table_column=Column(no_wrap=True)),
            BarColumn(bar_width=max(4, min(40, self._console.width - others))),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[state]}", table_column=Column(no_wrap=True)),
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", table_column=Column(no_wrap=True)),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(study, total=total, completed=done, state="", left="")
        self._start, self._earlier = time.monotonic(), done

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def running(self, count: int, part: float = 0.0) -> None:
        """How many are at work, and how many cells' worth of work these have done so far."""
        state = f"{count} running" + (f", {self._failed} failed" if self._failed else "")
        self._progress.update(self._task, state=state, left=self._left(part))

    def _left(self, part: float) -> str:
        done = self._done - self._earlier + part
        if done <= 0:
            return ""
        rest = max(0.0, self._total - self._done - part)
        return f"about {duration((time.monotonic() - self._start) / done * rest)} left"

    def ended(self, cell: Cell, record: dict[str, Any]) -> None:
        """Count a cell and print its line."""
        failed = record["status"] in ("failed", "killed")
        self.count(f"{cell.row} seed {cell.seed}", outcome(record), record["seconds"], failed=failed)

    def count(self, label: str, ending: str, seconds: float, *, failed: bool) -> None:
        """Count what ended, and print its line."""
        self._done += 1
        self._failed += failed
        self._progress.update(self._task, completed=self._done)
        width = len(str(self._total))
        self.say(f"[{self._done:>{width}}/{self._total}] {label}  {ending}  ({seconds:.1f} s)")


def outcome(record: dict[str, Any]) -> str:
    """How a run ended, in a few words."""
    if record["status"] == "finished":
        return f"val_loss {record['metrics']['val_loss']:.4f}"
    reason = first_line(record["reason"])
    return f"{record['status']}: {reason}" if reason else str(record["status"])


def first_line(reason: str | None) -> str:
    lines = (reason or "").strip().splitlines()
    return lines[0] if lines else ""


def part_done(run: RunFolder, max_steps: int) -> float:
    """How much of a run that is going on is done, 0 to 1, by the last line of its log."""
    try:
        with run.metrics_file.open("rb") as file:
            file.seek(max(0, run.metrics_file.stat().st_size - _TAIL))
            lines = file.read().split(b"\n")
    except OSError:  # not begun, or just now cleared
        return 0.0
    steps = [int(found[1]) for line in lines if (found := _STEP.match(line))]
    return min(1.0, steps[-1] / max_steps) if steps else 0.0
