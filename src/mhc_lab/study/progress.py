"""What is seen of a study while it runs: a bar on a terminal, a plain line a cell elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mhc_lab.study.spec import Cell


class Display:
    """Counts the cells that end. `done` of the `total` are there from an earlier command."""

    def __init__(self, study: str, total: int, done: int, console: Console | None = None) -> None:
        self._console = console or Console(soft_wrap=True, highlight=False)
        self._total, self._done, self._failed = total, done, 0
        self._progress = Progress(
            TextColumn(study, markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[running]} running"),
            TextColumn("{task.fields[failed]} failed"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task = self._progress.add_task(study, total=total, completed=done, running=0, failed=0)

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def running(self, count: int) -> None:
        self._progress.update(self._task, running=count)

    def ended(self, cell: Cell, record: dict[str, Any]) -> None:
        """Count a cell and print its line."""
        failed = record["status"] in ("failed", "killed")
        self.count(f"{cell.row} seed {cell.seed}", outcome(record), record["seconds"], failed=failed)

    def count(self, label: str, ending: str, seconds: float, *, failed: bool) -> None:
        """Count what ended, and print its line."""
        self._done += 1
        self._failed += failed
        self._progress.update(self._task, completed=self._done, failed=self._failed)
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


def duration(seconds: float) -> str:
    """12 s, 4 min, 3 h 20 min."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"
