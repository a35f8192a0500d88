"""The table on a terminal: the essential columns, under 120 characters wide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.measure import Measurement
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
    ("composite_gains", "composite\ngain", "right"),
    ("ms_ratio", "time", "right"),
    ("peak_memory_mb", "MiB", "right"),
)


# What goes first where the terminal is narrow: the page and the files have it.
_LESSER: tuple[tuple[str, ...], ...] = (
    ("peak_memory_mb",),
    ("paper_loss_gap",),
    ("h_res", "h_pre", "h_post"),
    ("composite_gains",),
    ("baseline",),
    ("ms_ratio",),
    ("val_loss",),
)
_UNBOUNDED = 10_000


Rows = Sequence[tuple[Mapping[str, str], bool, str]]  # texts, whether it is the best, the numbers of its notes


def _fitting(
    columns: Sequence[tuple[str, str, _Justify]], rows: Rows, title: str, console: Console
) -> tuple[Table, list[str]]:
    """The table with the columns that fit side by side, none of them broken, and the heads of those left out."""
    left = list(columns)
    dropped: list[str] = []
    room = console.options.update(max_width=_UNBOUNDED)
    for keys in (*_LESSER, None):
        table = _table(left, rows, title)
        if Measurement.get(console, room, table).maximum <= console.width:
            return table, dropped
        if keys is not None:
            dropped += [head.replace("\n", " ") for name, head, _ in left if name in keys]
            left = [column for column in left if column[0] not in keys]
    for column in table.columns:
        column.no_wrap = False  # broken, rather than cut off
    return table, dropped


def _table(columns: Sequence[tuple[str, str, _Justify]], rows: Rows, title: str) -> Table:
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for _, head, justify in columns:
        table.add_column(head, justify=justify, no_wrap=True, overflow="fold")
    table.add_column("note", no_wrap=True)
    for row, best, numbers in rows:
        cells = (f"[bold]{escape(row[key])}[/]" if best else escape(row[key]) for key, _, _ in columns)
        table.add_row(*cells, numbers)
    return table


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
    rows = [
        (row, row["row"] in layout.best, ",".join(map(str, own))) for row, own in zip(layout.rows, numbers, strict=True)
    ]
    table, dropped = _fitting([column for column in COLUMNS if column[0] in shown], rows, layout.title, console)

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
