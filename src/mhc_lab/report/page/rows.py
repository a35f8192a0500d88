"""The rows of the page's table: rounded texts with raw numbers to sort by, and what a row opens to."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pandas as pd

from mhc_lab.errors import LabError
from mhc_lab.report.configs import compare, settings
from mhc_lab.report.frame import Study
from mhc_lab.report.layout import Column, Layout, number_notes
from mhc_lab.report.markdown import SHORT
from mhc_lab.report.summary import Summary, losses_by_seed
from mhc_lab.report.texts import BLANK, decimal, number

_KEYS = ("val_loss", "loss_gap")
_TEXTS = ("row", "baseline", "note")
_RANKS = {"dynamic": 2, "static": 1, "fixed": 0, "equivalent": 2, "no worse": 1}


@dataclass(frozen=True)
class Cell:
    """A text under a column; `raw` is what it sorts by, empty for a blank; `key`: bold where the row is the best."""

    text: str
    raw: str
    align: str
    key: bool


@dataclass(frozen=True)
class Run:
    """One run of a row. `gap` is to the baseline at its seed; `reason` is of a run that did not finish."""

    seed: int
    run_id: str
    status: str
    reason: str
    texts: list[str]


@dataclass(frozen=True)
class Row:
    """A row of the table.

    `words` mark it (best, baseline), `lost` counts the runs that did not finish. `short` notes stand in it, `numbers`
    are of those under the table. `difference` is key, the value of row `against`, own value; `unknown` says why there
    is none.
    """

    name: str
    baseline: str
    against: str
    best: bool
    words: list[str]
    lost: list[str]
    cells: list[Cell]
    notes: list[str]
    short: list[str]
    numbers: list[int]
    overrides: list[str]
    difference: list[tuple[str, str, str]]
    unknown: str
    runs: list[Run]


NOTE = Column("note", "note", "", "l")
_IN_VIEW = ("row", "baseline", "loss_gap", "note", "val_loss")  # what a narrow window shows before it is scrolled
RUN_COLUMNS = (
    "val loss (nats/token)",
    "gap (nats/token)",
    "max ‖∇‖",
    "composite gain (fwd / bwd)",
    "steps",
    "time (ms/step)",
    "memory (MiB)",
    "started",
)


def page_columns(layout: Layout) -> list[Column]:
    """The table's columns with the notes among them, what answers the question first."""
    columns = {column.key: column for column in (*layout.columns, NOTE)}
    return [columns[key] for key in dict.fromkeys((*_IN_VIEW, *columns)) if key in columns]


def rows(study: Study, summary: Summary, layout: Layout) -> tuple[list[Row], list[str]]:
    """The rows in the study's order, and the notes that stand under the table by their numbers."""
    long, numbers = number_notes([[note for note in notes if len(note) > SHORT] for notes in layout.notes])
    cells: dict[str, list[dict[Any, Any]]] = {}
    for cell in study.cells.sort_values("seed", kind="stable").to_dict("records"):
        cells.setdefault(cell["row"], []).append(cell)
    losses = {name: losses_by_seed(study, name) for name in study.baselines}
    configs, columns = _Configs(study), page_columns(layout)
    found = []
    for place, (entry, (_, line)) in enumerate(zip(study.rows, summary.frame.iterrows(), strict=True)):
        name, notes, texts = str(entry["row"]), layout.notes[place], layout.rows[place]
        # The other baselines of a study of several are told from its first.
        against = str(entry["baseline"]) if entry["baseline"] != name else study.baseline
        difference, unknown = configs.difference(name, against)
        own = cells.get(name, [])
        found.append(
            Row(
                name=name,
                baseline=str(entry["baseline"]),
                against=against,
                best=name in layout.best,
                words=_words(entry, name in layout.best),
                lost=_lost(own),
                cells=[_cell(column, line, texts.get(column.key, "; ".join(notes))) for column in columns],
                notes=notes,
                short=[note for note in notes if len(note) <= SHORT],
                numbers=numbers[place],
                overrides=[str(override) for override in entry.get("overrides", [])],
                difference=difference,
                unknown=unknown,
                runs=[_run(cell, losses[entry["baseline"]]) for cell in own],
            )
        )
    return found, long


def is_text(column: Column) -> bool:
    """Whether a column sorts as words do."""
    return column.key in _TEXTS


class _Configs:
    """Differences between rows, the settings of each read once."""

    def __init__(self, study: Study) -> None:
        self.study = study
        self.known: dict[str, dict[str, str] | str] = {}

    def difference(self, row: str, against: str) -> tuple[list[tuple[str, str, str]], str]:
        """Where their settings differ (`configs.compare`); where these are not to be had, nothing and why."""
        ours, theirs = self._settings(against), self._settings(row)
        if isinstance(theirs, str):
            return [], theirs
        return ([], ours) if isinstance(ours, str) else (compare(ours, theirs), "")

    def _settings(self, row: str) -> dict[str, str] | str:
        if row not in self.known:
            try:
                self.known[row] = settings(self.study, row)
            except LabError as error:
                self.known[row] = str(error)
        return self.known[row]


def _words(entry: dict[str, Any], best: bool) -> list[str]:
    marks = {"best": best, "baseline": entry["row"] == entry["baseline"], "control arm": entry["control"]}
    return [word for word, holds in marks.items() if holds]


def _lost(cells: list[dict[Any, Any]]) -> list[str]:
    counts = Counter(cell["status"] for cell in cells if cell["status"] != "finished")
    return [f"{count} {status}" for status, count in counts.most_common()]


def _cell(column: Column, line: pd.Series, text: str) -> Cell:
    if is_text(column):
        return Cell(text, text, column.align, column.key in _KEYS)
    if column.key == "claim":
        return Cell(text, str(_RANKS.get(text, "")), column.align, column.key in _KEYS)
    value = line[column.raw or column.key]
    raw = "" if pd.isna(value) else str(_RANKS.get(value, value))
    return Cell(text, raw, column.align, column.key in _KEYS)


def _run(cell: dict[Any, Any], base: dict[int, float]) -> Run:
    seed, loss, finished = int(cell["seed"]), cell["val_loss"], cell["status"] == "finished"
    texts = [
        BLANK if pd.isna(loss) else decimal(loss, 4),
        decimal(loss - base[seed], 4, sign=True) if finished and seed in base else BLANK,
        number(cell["max_grad_norm"]),
        f"{number(cell['composite_gain_forward'])} / {number(cell['composite_gain_backward'])}",
        BLANK if pd.isna(cell["steps"]) else f"{cell['steps']:,.0f}",
        number(cell["ms_per_step"]),
        BLANK if pd.isna(cell["peak_memory_mb"]) else f"{cell['peak_memory_mb']:,.0f}",
        _moment(cell["started"]),
    ]
    reason = cell["reason"].strip() if isinstance(cell["reason"], str) else ""
    return Run(seed, str(cell["run_id"]), str(cell["status"]), reason, texts)


def _moment(text: object) -> str:
    """2026-01-31 09:30 of an ISO time."""
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M}" if isinstance(text, str) else BLANK
