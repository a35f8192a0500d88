"""Results of an analysis as files: JSON with provenance, CSV, Markdown, figures; and as a table on the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import mhc_lab
from mhc_lab.command import command_line
from mhc_lab.errors import LabError
from mhc_lab.identity.code import everything, fingerprint
from mhc_lab.report.figures.plot import Plot
from mhc_lab.report.provenance import git_state, machine, versions
from mhc_lab.run_folder import write_bytes, write_json, write_whole

Row = Mapping[str, Any]
WIDTH = 119


def provenance() -> dict[str, Any]:
    """What a number depends on beside its settings."""
    return {
        "command": command_line(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "git": git_state(Path(mhc_lab.__file__).parent),
        "code_fingerprint": fingerprint(everything()),
        "versions": versions(),
        "machine": machine() | {"threads": torch.get_num_threads()},
    }


def write(folder: Path, json_name: str, content: Row, rows: Sequence[Row], md: str, plots: Sequence[Plot]) -> None:
    """<json_name>.json, table.csv, table.md and figures/*.svg, *.png. LabError where they cannot be written."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        write_json(folder / f"{json_name}.json", _strict(content))
        write_whole(folder / "table.csv", csv_text(rows))
        write_whole(folder / "table.md", md.rstrip() + "\n")
        for plot in plots:
            write_whole(folder / "figures" / f"{plot.name}.svg", plot.svg)
            write_bytes(folder / "figures" / f"{plot.name}.png", plot.png())
    except OSError as error:
        raise LabError(f"{folder}: cannot be written: {error.strerror}; choose another --results") from error


def csv_text(rows: Sequence[Row]) -> str:
    """One line a row; a column that a row lacks stays empty."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def markdown_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first two columns are words, the others numbers."""
    rule = ["---" if place < 2 else "--:" for place in range(len(heads))]
    return "\n".join(f"| {' | '.join(line)} |" for line in [heads, rule, *rows])


def print_table(
    title: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    below: Sequence[str],
    *,
    above: Sequence[str] = (),
) -> None:
    """The same table on the terminal, the answer in words above it and lines under it."""
    console = Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, show_edge=False)
    for place, head in enumerate(heads):
        table.add_column(escape(head), justify="left" if place < 2 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    for line in above:
        console.print(line, markup=False, highlight=False)
    if above:
        console.print()
    console.print(table)
    for line in below:
        console.print(line, markup=False, highlight=False)


def number(value: Any, digits: int = 3) -> str:
    """A number in few digits; "" where it was not measured."""
    if value is None:
        return ""
    return f"{value:.{digits}g}"


def _strict(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become words."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: _strict(item) for key, item in value.items()}
    return [_strict(item) for item in value] if isinstance(value, list | tuple) else value
