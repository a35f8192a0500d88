"""What a command would do: its cells, which of them have a result, and how long the others may take."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.table import Table

from mhc_lab.study.advice import advice
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.spec import Cell, Grid
from mhc_lab.units import duration

CellState = Literal["done", "to run", "other code"]

_TIMED_STEPS = 3
_MOST_LINES = 200  # cells; beyond, a line a row

# What comes on top of training steps, on two CPU cores with the kernels compiled.
WORKERS_START_SECONDS = 6.0  # until the first run begins: imports, the corpus
RUN_START_SECONDS = 0.5  # a process, a model, its first checks


@dataclass(frozen=True)
class Plan:
    """`seconds`: of one run, by row, None where it could not be told; `workers` runs go on at once."""

    grid: Grid
    study: str
    states: dict[str, CellState]  # by run id
    seconds: dict[str, float | None]
    workers: int

    @property
    def total_seconds(self) -> float:
        """The time of the whole study, its start included; a run that several cells share counts once."""
        missing = {
            cell.run_id: self.seconds[cell.row] or 0.0
            for cell in self.grid.cells
            if self.states[cell.run_id] == "to run"
        }
        return whole_seconds(missing.values(), self.workers)

    def print(self, console: Console | None = None) -> None:
        console = console or Console(soft_wrap=True, highlight=False)
        console.print(self._by_cell() if len(self.grid.cells) <= _MOST_LINES else self._by_row())
        counts = [list(self.states.values()).count(state) for state in ("done", "to run", "other code")]
        console.print(
            f"{len(self.grid.cells)} cells, {len(self.states)} runs: {counts[0]} done, {counts[1]} to run, about "
            f"{duration(self.total_seconds)} with {self.workers} worker{'s' if self.workers > 1 else ''}",
            markup=False,
        )
        for line in advice(self.grid):
            console.print(f"note: {line}", markup=False)
        if counts[2]:
            console.print(f"{counts[2]} were made with other code: --rerun or --keep", markup=False)

    def _by_cell(self) -> Table:
        table = self._table("row", "seed", "run", "state", "time")
        for cell in self.grid.cells:
            state = self.states[cell.run_id]
            table.add_row(
                cell.row, str(cell.seed), cell.run_id, state, self._about(cell.row) if state == "to run" else ""
            )
        return table

    def _by_row(self) -> Table:
        table = self._table("row", "done", "to run", "other code", "time a run")
        states: dict[str, list[CellState]] = {row.name: [] for row in self.grid.rows}
        for cell in self.grid.cells:
            states[cell.row].append(self.states[cell.run_id])
        for row, own in states.items():
            counts = [str(own.count(state)) for state in ("done", "to run", "other code")]
            table.add_row(row, *counts, self._about(row) if "to run" in own else "")
        return table

    def _table(self, *heads: str) -> Table:
        return Table(*heads, title=f"{self.study}: {self.grid.title}", title_justify="left")

    def _about(self, row: str) -> str:
        seconds = self.seconds.get(row)
        return "unknown" if seconds is None else f"about {duration(seconds)}"


def whole_seconds(runs: Collection[float], workers: int) -> float:
    """How long `workers` take for runs of so many seconds each."""
    if not runs:
        return 0.0
    return WORKERS_START_SECONDS + sum(seconds + RUN_START_SECONDS for seconds in runs) / workers


def cell_state(folder: StudyFolder, run_id: str) -> CellState:
    run = folder.run(run_id)
    if not run.ended():
        return "to run"
    return "other code" if run.other_code() else "done"


def plan(grid: Grid, folder: StudyFolder, workers: int) -> Plan:
    """Look up, or measure in a few steps, how long the missing runs take. Nothing is written."""
    states = {cell.run_id: cell_state(folder, cell.run_id) for cell in grid.cells}
    seconds = _known_seconds(grid.cells, folder, states)
    alike = grid.alike()
    firsts = {rows[0] for rows in alike}
    unknown = [
        cell.row
        for cell in grid.cells
        if states[cell.run_id] == "to run" and cell.row in firsts and cell.row not in seconds
    ]
    if unknown:
        from mhc_lab.training.timing import time_rows

        baselines = {row.name: row.baseline for row in grid.rows}
        needed = dict.fromkeys([*(baselines[name] for name in unknown), *unknown])
        configs = {name: grid.row(name).config for name in needed}
        for name, timed in time_rows(configs, baselines, steps=_TIMED_STEPS)["rows"].items():
            seconds.setdefault(name, timed["ms_per_step"] / 1000 * configs[name].trainer.max_steps)
    for rows in alike:
        for row in rows:
            seconds.setdefault(row, seconds.get(rows[0]))  # None where its steps failed, as its runs may
    return Plan(grid, folder.name, states, seconds, workers)


def _known_seconds(
    cells: tuple[Cell, ...], folder: StudyFolder, states: dict[str, CellState]
) -> dict[str, float | None]:
    """By row, how long the first of its finished runs took."""
    seconds: dict[str, float | None] = {}
    for cell in cells:
        if states[cell.run_id] != "to run" and cell.row not in seconds:
            record = folder.run(cell.run_id).record()
            assert record is not None
            if record["status"] == "finished":
                seconds[cell.row] = record["seconds"]
    return seconds
