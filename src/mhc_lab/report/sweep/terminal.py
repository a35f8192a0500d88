"""A sweep's first table on a terminal."""

from __future__ import annotations

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table as Printed

from mhc_lab.report.sweep.data import Sweep
from mhc_lab.report.sweep.tables import best_table, pareto_table
from mhc_lab.report.terminal import WIDTH


def print_sweep(sweep: Sweep, console: Console | None = None) -> None:
    """Print the best trials, or the Pareto front of several objectives, with the words beneath.

    Without a `console` it goes to stdout, as wide as the terminal, up to 119 columns.
    """
    if console is None:
        console = Console()
        console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    table = pareto_table(sweep) if len(sweep.objectives) > 1 else best_table(sweep)
    printed = Printed(
        title=escape(table.title),
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    # The rows stand in their order: the place, which a narrow terminal has no room for, goes without saying.
    first = 1 if table.heads[:1] == ("place",) else 0
    for head, side in zip(table.heads[first:], table.align[first:], strict=True):
        # Cells stay on one line, so heads are broken by hand.
        narrow = escape(head.replace(" (", "\n(").replace("minus the ", "minus the\n"))
        printed.add_column(narrow, justify="left" if side == "l" else "right", overflow="fold", no_wrap=True)
    for number, row in enumerate(table.rows):
        printed.add_row(*(f"[bold]{escape(cell)}[/]" if number == table.bold else escape(cell) for cell in row[first:]))
    if table.rows:
        console.print(printed)
    else:
        console.print(table.title, markup=False, highlight=False, style="bold")
    for line in table.words:
        console.print(line, markup=False, highlight=False, style="dim")
