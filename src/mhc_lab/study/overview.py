"""Which studies a results folder holds and how far each is; one study as data for scripts. Torch-free."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table

from mhc_lab.errors import LabError
from mhc_lab.run_folder import ENDED
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.status import STATES, state


@dataclass(frozen=True)
class Overview:
    """`done` of `total` cells (a grid) or trials (a sweep) have an answer; `problem`: why that cannot be told."""

    study: str
    kind: Literal["grid", "sweep", ""]
    title: str
    created: str
    done: int = 0
    running: int = 0
    total: int = 0
    problem: str = ""


def overviews(results: Path) -> list[Overview]:
    """All studies of `results`, by name. One that cannot be read says why."""
    found = []
    for file in sorted(results.glob("*/study.json")):
        try:
            found.append(_overview(StudyFolder(results, file.parent.name)))
        except LabError as error:
            found.append(Overview(file.parent.name, "", "", "", problem=str(error)))
    return found


def print_overviews(found: list[Overview], console: Console | None = None) -> None:
    console = console or Console(soft_wrap=True, highlight=False)
    table = Table("study", "kind", "done", "running", "begun", "title", box=None, pad_edge=False)
    for one in found:
        done = f"{one.done} of {one.total}" if one.kind else "?"
        table.add_row(one.study, one.kind, done, str(one.running or ""), one.created[:10], one.title or one.problem)
    console.print(table)


def study_data(results: Path, study: str) -> dict[str, Any]:
    """One study for scripts: the fields of `Overview`, and its `cells` (row, seed, run_id, state, reason) or its
    `trials` (number, state, params, values). Raises LabError for an unknown one."""
    folder = StudyFolder(results, study)
    found = dataclasses.asdict(_overview(folder))
    if folder.is_sweep():
        from mhc_lab.study.outcome import read_sweep

        trials = [
            {"number": one.number, "state": one.state, "params": dict(one.params), "values": one.values}
            for one in read_sweep(folder).trials
        ]
        return {**found, "trials": trials}
    cells = []
    for cell in folder.content()["cells"]:
        where, reason = state(folder.run(cell["run_id"]))
        cells.append({**cell, "state": where, "reason": reason})
    return {**found, "cells": cells}


def _overview(folder: StudyFolder) -> Overview:
    content = folder.content()
    common = (content["title"], content["created"])
    if folder.is_sweep():
        from mhc_lab.study.outcome import read_sweep

        sweep = read_sweep(folder)
        states = Counter(trial.state for trial in sweep.trials)
        done = states["complete"] + states["pruned"] + states["failed"]
        return Overview(folder.name, "sweep", *common, done=done, running=states["running"], total=sweep.budget)
    counts = Counter(state(folder.run(cell["run_id"]))[0] for cell in content["cells"])
    assert set(counts) <= set(STATES)
    done = sum(counts[ended] for ended in ENDED)
    return Overview(folder.name, "grid", *common, done=done, running=counts["running"], total=counts.total())
