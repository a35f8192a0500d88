"""`mhc-lab sync`: send what a server missed, of runs made here or copied from another machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from filelock import Timeout

from mhc_lab.addresses import sqlite_file
from mhc_lab.errors import LabError
from mhc_lab.files import GRID, Maybe, read_json
from mhc_lab.run_folder import RunFolder
from mhc_lab.secrets import public, redact
from mhc_lab.tracking.send import send
from mhc_lab.tracking.state import State, locked, read_state, study_key
from mhc_lab.tracking.store import (
    DamagedStore,
    check_reachable,
    client,
    default_uri,
    errors,
    place_name,
    prepare_store,
    resolve_uri,
)
from mhc_lab.tracking.study import StudyStatus, close_study, study_run

LISTED = {"study": str, "cells": Maybe(GRID["cells"])}  # what of a study.json is asked for here
TABLES = ("table.md", "table.tex", "table.csv", "provenance.json")


@dataclass
class Synced:
    """How many runs were looked at, of how many something was sent, and to which servers."""

    runs: int = 0
    sent: int = 0
    uris: list[str] = field(default_factory=list)


def sync(results: Path, uri: str | None = None, paths: Sequence[Path] = ()) -> Synced:
    """Send what a server lacks of every run that has begun: those of `results`, or the run folders under `paths`.

    To the server `uri`, by default the store of `results`; never to an address that a folder holds, which may come from
    anybody. Runs that never were sent, made with `tracking=none` even, are sent whole, and so are those that the server
    has lost. A run that no process works on and that has no record counts as killed. A study whose runs all have ended
    gets its status. A run that cannot be sent does not keep the others.

    Raises LabError where the server cannot be reached or refuses, a path holds no run folder, a run could not be sent,
    and, without `uri`, where runs were made for another server.
    """
    target = resolve_uri(uri or "", results)
    done = Synced(uris=[public(target)])
    elsewhere: dict[str, int] = {}
    problems: list[str] = []
    servers: dict[str, set[str]] = {}
    studies: dict[tuple[str, str, str], Path] = {}
    for folder in _run_folders(results, paths):
        try:
            if not folder.metrics_file.is_file() and folder.record() is None:
                continue  # planned, not begun
            with locked(folder):
                state = read_state(folder) or _state_of(folder, results)
                if uri is None and not _own(state.uri, results):
                    elsewhere[public(state.uri)] = elsewhere.get(public(state.uri), 0) + 1
                    continue
                if state.experiment not in servers:
                    servers[state.experiment] = _runs_there(target, state.experiment, results)
                place = place_name(target, results)
                there = state.servers.get(place)
                if there is not None and there.run_id not in servers[state.experiment]:
                    del state.servers[place]
                done.sent += send(folder, state, target, results, cut_off=_idle(folder))
        except LabError as error:
            problems.append(f"{folder.path}: not sent: {error}")
            continue
        except errors() as error:
            problems.append(f"{folder.path}: not sent: {_why(error)}")
            _check_answers(target, error)
            continue
        done.runs += 1
        if state.study:
            studies[(state.experiment, state.study, state.study_key)] = folder.path.parent
    for (experiment, study, key), runs in studies.items():
        try:
            _end(target, experiment, results, study, key, runs)
        except errors() as error:
            raise _refused(target, error) from error
    problems += [
        f"{count} runs were made for {place}: mhc-lab sync --tracking-uri {place} sends them there"
        for place, count in elsewhere.items()
    ]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise LabError(f"{problems[0]}{more}; {done.runs} runs were looked at, {done.sent} sent")
    return done


def _own(place: str, results: Path) -> bool:
    """Whether a run was made for the store of its own results folder, where that has been moved too."""
    if place in ("", default_uri(results)):
        return True
    file = sqlite_file(place)
    return file is not None and (file.parent.name, file.name) == ("runs", "mlflow.db")


def _why(error: Exception) -> str:
    return redact(str(error).splitlines()[0] if str(error) else type(error).__name__)


def _check_answers(uri: str, error: Exception) -> None:
    """LabError where the server itself is the trouble, and not the one run: the others would wait for it in vain."""
    if isinstance(error, DamagedStore):
        raise LabError(str(error)) from error
    try:
        check_reachable(uri)
        client(uri).search_experiments(max_results=1)
    except errors() as trouble:
        raise _refused(uri, trouble) from trouble


def _run_folders(results: Path, paths: Sequence[Path]) -> Iterator[RunFolder]:
    """`paths` may be run folders, folders of them, or results folders."""
    # No deeper: MLflow's artifacts, which lie in results/runs, hold copies of config.yaml.
    for path in paths or [results]:
        places = ("config.yaml", "*/config.yaml", "runs/*/config.yaml")
        configs = [config for place in places for config in sorted(path.glob(place))]
        if paths and not configs:
            raise LabError(f"{path}: no run folder in it (a run folder has a config.yaml)")
        yield from (RunFolder(config.parent.resolve()) for config in configs)


def _state_of(folder: RunFolder, results: Path) -> State:
    """For a run that was made without tracking: its study, if one in its results folder lists it."""
    tracking = folder.config().tracking
    state = State(uri=tracking.uri, experiment=tracking.experiment)
    home = folder.path.parent.parent
    for file in sorted(home.glob("*/study.json")):
        study = read_json(file, LISTED) or {"study": "", "cells": []}
        rows = [cell["row"] for cell in study.get("cells", []) if cell["run_id"] == folder.run_id]
        if rows:
            own = home == results.resolve()
            state.study, state.tags = study["study"], {"row": rows[0]}
            state.study_key = study_key(results, study["study"] if own else f"{study['study']} of {home}")
            break
    return state


def _runs_there(uri: str, experiment: str, results: Path) -> set[str]:
    """All runs of an experiment, those that a user deleted too: they are not to come back."""
    from mlflow.entities import ViewType

    found: set[str] = set()
    place = prepare_store(uri, experiment, results)
    token: str | None = None
    while True:
        page = client(uri).search_runs([place], run_view_type=ViewType.ALL, max_results=1000, page_token=token)
        found |= {run.info.run_id for run in page}
        token = page.token
        if not token:
            return found


def _idle(folder: RunFolder) -> bool:
    try:
        with folder.lock():
            return True
    except Timeout:
        return False


def _end(uri: str, experiment: str, results: Path, study: str, key: str, runs: Path) -> None:
    """Status and tables for a study that the server takes for running, though all its runs have ended."""
    parent = study_run(uri, prepare_store(uri, experiment, results), results, study, key)
    if client(uri).get_run(parent).info.status != "RUNNING":
        return
    home = runs.parent / study
    cells = (read_json(home / "study.json", LISTED) or {}).get("cells")
    if cells:
        folders = [RunFolder(runs / cell["run_id"]) for cell in cells]
    else:
        mine = [RunFolder(config.parent) for config in runs.glob("*/config.yaml")]
        folders = [f for f in mine if (s := read_state(f)) is not None and s.study_key == key]
    records = [folder.record() for folder in folders]
    if all(record is not None for record in records):
        statuses = {record["status"] for record in records if record}
        status: StudyStatus = "KILLED" if "killed" in statuses else "FAILED" if "failed" in statuses else "FINISHED"
        close_study(uri, parent, status, [home / name for name in TABLES if (home / name).is_file()])


def _refused(uri: str, error: Exception) -> LabError:
    return LabError(f"tracking server {public(uri)} cannot be reached or refuses: {_why(error)}")
