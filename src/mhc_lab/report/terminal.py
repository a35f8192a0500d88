"""The table on a terminal: the essential columns, under 120 characters wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mhc_lab.report.frame import load
from mhc_lab.report.layout import lay_out, number_notes
from mhc_lab.report.summary import summarize

WIDTH = 119
_Justify = Literal["left", "center", "right"]
COLUMNS: tuple[tuple[str, str, _Justify], ...] = (
    ("row", "row", "left"),
    ("baseline", "against", "left"),
    ("h_res", "res", "center"),
    ("h_pre", "pre", "center"),
    ("h_post", "post", "center"),
    ("val_loss", "val loss", "right"),
    ("loss_gap", "loss gap", "right"),
    ("paper_loss_gap", "paper", "right"),
    ("composite_gains", "composite gain", "right"),
    ("ms_ratio", "time", "right"),
    ("peak_memory_mb", "MiB", "right"),
)


# What goes first where the terminal is narrow: the page and the files have it.
_LESSER = ("peak_memory_mb", "h_res", "h_pre", "h_post", "paper_loss_gap", "composite_gains", "baseline", "ms_ratio")
NARROW = 50  # columns, below which names are broken all the same


def _fitting(
    columns: list[tuple[str, str, _Justify]], rows: Sequence[Mapping[str, str]], width: int
) -> tuple[list[tuple[str, str, _Justify]], list[str]]:
    """The columns that fit side by side, none of them broken, and the heads of those that are left out."""
    left, dropped = list(columns), []
    for key in _LESSER:
        if sum(_width(column, rows) + 2 for column in left) <= width + 1:
            break
        dropped += [head for name, head, _ in left if name == key]
        left = [column for column in left if column[0] != key]
    return left, dropped


def _width(column: tuple[str, str, _Justify], rows: Sequence[Mapping[str, str]]) -> int:
    key, head, _ = column
    return max([len(head), *(len(row[key]) for row in rows)])


def print_table(results: Path, study: str, console: Console | None = None) -> None:
    """Print a study's table with its notes.

    Without a `console` it goes to stdout, as wide as the terminal, up to 119 columns. Raises LabError as
    `read_study` does.
    """
    loaded = load(results, study)
    layout = lay_out(loaded, summarize(loaded))
    if console is None:
        console = Console()
        console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH

    shown = {column.key for column in layout.columns} | ({"ms_ratio"} if loaded.timing else set())
    distinct, numbers = number_notes(layout.notes)
    columns = [column for column in COLUMNS if column[0] in shown]
    numbered = max((len(",".join(map(str, own))) for own in numbers), default=0)
    columns, dropped = _fitting(columns, layout.rows, console.width - max(len("note"), numbered) - 3)
    table = Table(title=escape(layout.title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for _, head, justify in columns:
        table.add_column(head, justify=justify, no_wrap=not dropped or console.width > NARROW, overflow="fold")
    table.add_column("note")
    for row, row_numbers in zip(layout.rows, numbers, strict=True):
        best = row["row"] in layout.best
        cells = (f"[bold]{escape(row[key])}[/]" if best else escape(row[key]) for key, _, _ in columns)
        table.add_row(*cells, ",".join(map(str, row_numbers)))

    for line in layout.verdict:
        console.print(line, markup=False, highlight=False, style="bold")
    console.print()
    console.print(table)
    if dropped:
        console.print(f"left out for want of room: {', '.join(dropped)}", markup=False, highlight=False, style="dim")
    for i, note in enumerate(distinct, start=1):
        console.print(f"{i}. {note}", markup=False, highlight=False)
    for line in layout.legend:
        console.print(line, markup=False, highlight=False, style="dim")
    for line in layout.warnings:
        console.print(f"warning: {line}", markup=False, highlight=False, style="yellow")
