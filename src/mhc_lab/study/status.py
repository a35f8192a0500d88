"""How far a study is, read from its run folders alone. Torch-free."""

from __future__ import annotations

import datetime
from collections import Counter
from pathlib import Path

from filelock import Timeout
from rich.console import Console
from rich.table import Table

from mhc_lab.report.sweep.data import value_text
from mhc_lab.run_folder import RunFolder
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.progress import first_line
from mhc_lab.units import duration

STATES = ("finished", "diverged", "failed", "running", "waiting")


def state(folder: RunFolder) -> tuple[str, str]:
    """One of STATES, and the reason where there is one. A killed run waits to be run again."""
    record = folder.record()
    if record is not None:
        if record["status"] in ("killed", "pruned"):  # pruned by a sweep: to a grid it is not done
            return "waiting", f"{record['status']}: {first_line(record['reason'])}"
        return record["status"], first_line(record["reason"])
    if not (folder.path / "run.lock").exists():
        return "waiting", ""
    try:
        with folder.lock():
            return "waiting", ""
    except Timeout:
        return "running", _whereabouts(folder)


def _whereabouts(folder: RunFolder) -> str:
    """Where a run is being made, for how long, and how far it is by its own log."""
    begun = folder.begun()
    if begun is None:
        return ""
    since = datetime.datetime.fromisoformat(begun["since"])
    seconds = (datetime.datetime.now(datetime.UTC) - since).total_seconds()
    return (
        f"on {begun['host']} (pid {begun['pid']}) for {duration(max(0.0, seconds))}, "
        f"at step {folder.logged_steps()} of {folder.config().trainer.max_steps}"
    )


def status(results: Path, study: str, console: Console | None = None) -> None:
    """Print a line a row: how many of its cells are in which state, and why some have no result.

    Raises LabError for an unknown study.
    """
    console = console or Console(soft_wrap=True, highlight=False)
    folder = StudyFolder(results, study)
    content = folder.content()
    if folder.is_sweep():
        _sweep_status(folder, console)
        return
    table = Table(title=f"{study}: {content['title']}", title_justify="left")
    table.add_column("row", overflow="fold")
    for head in STATES:
        table.add_column(head)
    why = []
    totals: Counter[str] = Counter()
    for row in content["rows"]:
        cells = [cell for cell in content["cells"] if cell["row"] == row["row"]]
        found = [(cell["seed"], *state(folder.run(cell["run_id"]))) for cell in cells]
        counts = Counter(where for _, where, _ in found)
        totals += counts
        table.add_row(row["row"], *(str(counts[where] or "") for where in STATES))
        why += [f"{row['row']} {reason}" for reason in _reasons(found)]
    console.print(table)
    for line in why:
        console.print(line, markup=False)
    console.print(", ".join(f"{totals[where]} {where}" for where in STATES if totals[where]), markup=False)
    if totals["failed"] or (totals["waiting"] and not totals["running"]):
        console.print(f"to go on, repeat: {content['command']}", markup=False)


def _sweep_status(folder: StudyFolder, console: Console) -> None:
    """A line a state of a sweep's trials, and the best so far; read from its storage."""
    from mhc_lab.study.outcome import read_sweep

    sweep = read_sweep(folder)
    console.print(f"{sweep.name}: {sweep.title}", markup=False)
    console.print(f"{sweep.budget} trials: {sweep.state_words()}", markup=False)
    for trial in sweep.trials:
        if trial.state == "failed":
            console.print(f"trial {trial.number} failed: {first_line(trial.reason)}", markup=False)
    if sweep.ranked:
        best = sweep.ranked[0]
        point = ", ".join(f"{key}={value_text(value)}" for key, value in best.params.items())
        assert best.values is not None
        console.print(
            f"best: trial {best.number}, {sweep.objectives[0].name} {best.values[0]:.4f}, {point}", markup=False
        )
    if any(trial.state == "waiting" for trial in sweep.trials):
        console.print(f"to go on, repeat: {sweep.command}", markup=False)


def _reasons(found: list[tuple[int, str, str]]) -> list[str]:
    """Why cells have no loss: a line for all the seeds with one reason."""
    seeds: dict[tuple[str, str], list[str]] = {}
    for seed, where, reason in found:
        if reason:
            seeds.setdefault((where, reason), []).append(str(seed))
    return [f"seed {', '.join(which)} {where}: {reason}" for (where, reason), which in seeds.items()]
