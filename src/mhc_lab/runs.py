"""`mhc-lab runs`: the runs of a results folder: how they ended, their size, the studies that use them. Torch-free."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import Timeout
from rich.console import Console
from rich.table import Table

from mhc_lab.errors import LabError, nearest
from mhc_lab.run_folder import RunFolder, runs_dir
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.status import STATES, state
from mhc_lab.units import size

DAMAGED = "damaged"


@dataclass(frozen=True)
class Run:
    """One run's folder. `size` in bytes; `studies`: that have it as a cell or in a trial; "" and None: not known."""

    run_id: str
    status: str
    variant: str
    seed: int | None
    val_loss: float | None
    ended: str
    size: int
    studies: tuple[str, ...]


def runs(results: Path, warn: Callable[[str], None] | None = None) -> list[Run]:
    """All runs of `results`, the latest first. A folder whose files are damaged is listed as such.

    A study that cannot be read, whose runs would therefore seem unused, is a LabError, or a warning through `warn`.
    """
    users = _users(results, warn)
    found = [_run(folder, users) for folder in _folders(results)]
    return sorted(found, key=lambda run: (run.ended, run.run_id), reverse=True)


def chosen(
    results: Path,
    run_ids: Sequence[str] = (),
    status: Collection[str] = (),
    *,
    unused: bool = False,
    warn: Callable[[str], None] | None = None,
) -> list[Run]:
    """Those named, or all, that are in one of the states and, with `unused`, in no study.

    Raises LabError for a run that is not there and a state that is none.
    """
    for name in status:
        if name not in (*STATES, DAMAGED):
            raise LabError(f"--status {name}: {nearest(name, (*STATES, DAMAGED))}")
    found = runs(results, warn)
    known = {run.run_id: run for run in found}
    names = [Path(name).name for name in run_ids]  # a folder's path is a name too
    for name in names:
        if name not in known:
            raise LabError(f"no run '{name}' in {runs_dir(results)}; see mhc-lab runs")
    picked = [known[name] for name in dict.fromkeys(names)] if names else found
    return [run for run in picked if (not status or run.status in status) and not (unused and run.studies)]


def remove(results: Path, picked: Sequence[Run], *, force: bool = False) -> int:
    """Remove the folders of `picked`; the bytes that this frees.

    Raises LabError, with nothing removed, where a process works on one or, unless forced, a study uses one.
    """
    used = [run for run in picked if run.studies]
    if used and not force:
        more = f" and {len(used) - 1} more" if len(used) > 1 else ""
        raise LabError(
            f"run {used[0].run_id}{more}: study '{used[0].studies[0]}' uses it; --force removes it all the same "
            "(the study's command makes it again)"
        )
    held = []
    try:
        for run in picked:
            lock = RunFolder(runs_dir(results) / run.run_id).lock()
            try:
                lock.acquire()
            except Timeout as error:
                raise LabError(f"run {run.run_id}: a process works on it; stop that first") from error
            held.append(lock)
        for run in picked:
            shutil.rmtree(runs_dir(results) / run.run_id)
    except OSError as error:
        raise LabError(f"{error.filename}: cannot be removed: {error.strerror}") from error
    finally:
        for lock in held:
            lock.release()
    return sum(run.size for run in picked)


def print_runs(found: Sequence[Run], console: Console | None = None) -> None:
    """A table on a terminal: one line a run, and what they take in all."""
    console = console or Console(soft_wrap=True, highlight=False)
    if not found:
        console.print("no run")
        return
    table = Table(box=None, pad_edge=False)
    for head in ("run", "status", "seed", "val loss", "ended", "size"):
        table.add_column(head, no_wrap=True)
    table.add_column("studies", overflow="fold")
    for run in found:
        loss = "" if run.val_loss is None else f"{run.val_loss:.4f}"
        seed = "" if run.seed is None else str(run.seed)
        studies = ", ".join(run.studies)
        table.add_row(run.run_id, run.status, seed, loss, run.ended[5:16].replace("T", " "), size(run.size), studies)
    console.print(table)
    console.print(f"{len(found)} runs, {size(sum(run.size for run in found))}")


def as_json(found: Sequence[Run]) -> str:
    """A list of objects with the fields of `Run`."""
    return json.dumps([dataclasses.asdict(run) for run in found], indent=1)


def _folders(results: Path) -> Iterator[RunFolder]:
    for config in sorted(runs_dir(results).glob("*/config.yaml")):
        yield RunFolder(config.parent)


def _run(folder: RunFolder, users: dict[str, list[str]]) -> Run:
    variant, _, _ = folder.run_id.rpartition("-")
    record: dict[str, Any] = {}
    try:
        status = state(folder)[0]
        record = folder.record() or {}
    except LabError:
        status = DAMAGED
    return Run(
        run_id=folder.run_id,
        status=status,
        variant=variant,
        seed=record.get("seed"),
        val_loss=record.get("metrics", {}).get("val_loss"),
        ended=record.get("ended") or "",
        size=sum(file.lstat().st_size for file in folder.path.rglob("*")),
        studies=tuple(users.get(folder.run_id, ())),
    )


def _users(results: Path, warn: Callable[[str], None] | None) -> dict[str, list[str]]:
    """By run id, the studies that use it."""
    users: dict[str, list[str]] = defaultdict(list)
    for file in sorted(results.glob("*/study.json")):
        try:
            folder = StudyFolder(results, file.parent.name)
            used = _of_sweep(folder) if folder.is_sweep() else _of_grid(folder)
        except LabError as error:
            if warn is None:
                raise LabError(f"which runs study '{file.parent.name}' uses cannot be told: {error}") from error
            warn(f"which runs study '{file.parent.name}' uses cannot be told: {error}")
            continue
        for run_id in dict.fromkeys(used):
            users[run_id].append(folder.name)
    return users


def _of_grid(folder: StudyFolder) -> list[str]:
    return [cell["run_id"] for cell in folder.content()["cells"]]


def _of_sweep(folder: StudyFolder) -> list[str]:
    from mhc_lab.study.outcome import read_sweep
    from mhc_lab.study.storage import trials
    from mhc_lab.study.trial import RUNS

    return [run_id for trial in trials(read_sweep(folder).study) for run_id in trial.user_attrs.get(RUNS, {}).values()]
