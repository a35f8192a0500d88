"""`ablate`: a grid becomes an Optuna study, workers run its cells, the table follows.

Run folders say what is done; the study is the queue. So a repeated command repeats nothing that has a result, whatever
became of the process that made it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import optuna
from filelock import Timeout
from optuna.trial import TrialState

from mhc_lab.command import command_line
from mhc_lab.disk import DiskFull
from mhc_lab.errors import LabError, RunsFailed
from mhc_lab.identity.ledger import named
from mhc_lab.machine import safe_environment
from mhc_lab.run_folder import RunFolder
from mhc_lab.study.advice import advice
from mhc_lab.study.child import DEFAULT_TARGET
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.holding import alone, concluded
from mhc_lab.study.keys import typed
from mhc_lab.study.launchers.local import LocalLauncher, Slot, slots
from mhc_lab.study.plan import plan
from mhc_lab.study.progress import Display, first_line, part_done
from mhc_lab.study.pull import give_up
from mhc_lab.study.ready import COMPILING, kernels_are_cold, timing_kernels
from mhc_lab.study.signals import interruptible, undisturbed
from mhc_lab.study.spec import Cell, Grid, Tuned, load_grid
from mhc_lab.study.storage import (
    DEFAULT_STORAGE,
    StudyStorage,
    close,
    each_run,
    resolve,
    stored_storage,
    trials,
    without_password,
)

_POLL_SECONDS = 0.2


def ablate(
    grid: str,
    *,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    study: str | None = None,
    workers: int | None = None,
    storage: str | None = None,
    tracking_uri: str | None = None,
    results: Path = Path("results"),
    config_dir: Path | None = None,
    dry_run: bool = False,
    rerun: bool = False,
    keep: bool = False,
    tuned: str | None = None,
    title: str | None = None,
    command: str | None = None,
) -> Path:
    """Run what a grid lacks, time its rows, print its table and write it into the study's folder, which is returned.

    `overrides` are shared by all rows. `storage` is an Optuna URL, by default a sqlite file under `results`.
    `tuned` names a sweep of the same `results`, whose best point each row takes. `rerun` runs results of other code
    again, `keep` takes them as they are. `title` stands above the table. `dry_run` prints what would
    be done. `command` is what a user repeats, by default this process's command line.

    Raises LabError for bad input, RunsFailed where cells have no result (after the table is written), and
    StudyInterrupted on Ctrl-C and SIGTERM: the same command then goes on.
    """
    shared = typed(overrides, workers, tracking_uri)
    loaded = load_grid(grid, seeds, shared, config_dir, _tuned(tuned, results), title)
    folder = StudyFolder(results, study or loaded.name)
    folder.check(loaded)
    config = loaded.row(loaded.baseline).config
    places = slots(config)
    if dry_run:
        plan(loaded, folder, len(places)).print()
        return folder.path
    with interruptible(), alone(folder), concluded(folder, config.tracking) as ending:
        command = command or command_line()
        for line in advice(loaded):
            print(f"note: {line}", flush=True)
        with nullcontext() if folder.timed() else timing_kernels(config):
            failures = run_cells(
                loaded,
                folder,
                places,
                storage=storage,
                rerun=rerun,
                keep=keep,
                command=command,
                target=DEFAULT_TARGET,
            )
        records = [folder.run(run_id).record() or {} for run_id in dict.fromkeys(cell.run_id for cell in loaded.cells)]
        if any(record.get("status") == "finished" for record in records):
            time_rows(folder, places[0])
            ending.artifacts = _report(folder, command)
        else:
            reason = first_line(records[0].get("reason"))
            failures = failures or [f"no run finished: all {len(records)} diverged; {reason}"]
        ending.status = "FAILED" if failures else "FINISHED"
    if failures:
        raise RunsFailed("\n".join(failures))
    return folder.path


def _tuned(sweep: str | None, results: Path) -> Tuned | None:
    if sweep is None:
        return None
    from mhc_lab.study.outcome import best_by

    return best_by(StudyFolder(results, sweep))


def run_cells(
    grid: Grid,
    folder: StudyFolder,
    places: Sequence[Slot],
    *,
    storage: str | None = None,
    rerun: bool = False,
    keep: bool = False,
    command: str = "",
    target: str = DEFAULT_TARGET,
) -> list[str]:
    """Run the cells of a grid that have no result yet; the lines about those that still have none after it.

    `target` is the "module:function" that a child process calls with its RunFolder.
    """
    outdated = _outdated(grid, folder, rerun=rerun, keep=keep)
    kept = stored_storage(folder, storage)
    url = resolve(kept, folder.results)
    study_storage = _open_storage(grid, folder, url)
    optuna_study = study_storage.create()
    if kept != DEFAULT_STORAGE:
        study_storage.claim(optuna_study)
    folder.write(grid, storage=without_password(kept), command=command)
    for run in outdated:
        _forget(run)
    missing = [cell for cell in grid.cells if not folder.run(cell.run_id).ended()]
    for cell in missing:
        RunFolder.create(folder.results, cell.config, cell.corpus_fingerprint)
    _announce(grid, folder)
    enqueue(study_storage, optuna_study, missing)
    for cell in missing:
        _forget_failure(folder.run(cell.run_id))

    done = len(grid.cells) - len(missing)
    deaths: list[str] = []
    with Display(folder.name, len(grid.cells), done) as display:
        display.say(f"study {folder.name}: {len(grid.cells)} cells, {done} done, {len(missing)} to run")
        if missing and kernels_are_cold(grid.row(grid.baseline).config):
            display.say(COMPILING)
        if missing:
            config = grid.row(grid.baseline).config
            launcher = LocalLauncher(folder.results, folder.name, url, config, places, target)
            try:
                _watch(missing, folder, launcher, display)
            finally:
                with undisturbed():
                    launcher.stop()
            deaths = launcher.deaths()
            if launcher.disk_full():
                raise DiskFull(folder.results)
    return _failures(grid, folder, deaths)


def enqueue(storage: StudyStorage, study: optuna.Study, missing: Sequence[Cell]) -> None:
    """Queue a trial for each missing run that none stands for, and close those that wait for another."""
    wanted = {cell.run_id for cell in missing}
    with storage.taking():
        storage.reap(study)
        for trial in trials(study, TrialState.WAITING):
            if trial.user_attrs.get("run_id") not in wanted:
                close(study, trial)
        queued = set(each_run(study, TrialState.WAITING, TrialState.RUNNING))
        for cell in missing:
            if cell.run_id not in queued:
                queued.add(cell.run_id)
                attributes = {"row": cell.row, "seed": cell.seed, "run_id": cell.run_id}
                study.enqueue_trial({}, user_attrs=attributes)


def _open_storage(grid: Grid, folder: StudyFolder, url: str) -> StudyStorage:
    launcher = grid.row(grid.baseline).config.launcher
    return StudyStorage(
        url,
        folder.name,
        folder.results,
        interval=launcher.heartbeat_interval,
        grace=launcher.heartbeat_grace,
        exhausted=give_up(folder.results),
    )


def _outdated(grid: Grid, folder: StudyFolder, *, rerun: bool, keep: bool) -> list[RunFolder]:
    """The results of other code that are to be run again; LabError where the user has not chosen."""
    if rerun and keep:
        raise LabError("--rerun and --keep exclude each other")
    run_ids = dict.fromkeys(cell.run_id for cell in grid.cells)
    differing = {run_id: folder.run(run_id).other_code() for run_id in run_ids}
    other = [run_id for run_id, names in differing.items() if names]
    if other and not (rerun or keep):
        names = sorted({name for names in differing.values() for name in names})
        raise LabError(
            f"{len(other)} of {len(run_ids)} runs were made with other code than now ({named(names)}): "
            f"--rerun clears them and runs them again, --keep takes them as they are"
        )
    return [folder.run(run_id) for run_id in other] if rerun else []


def _forget(run: RunFolder) -> None:
    try:
        with run.lock():
            run.clear()
    except Timeout as error:
        raise LabError(f"{run.path}: another process works on this run; wait for it") from error


def _forget_failure(run: RunFolder) -> None:
    """Take away the record of a former failure, so that one that appears is this command's."""
    try:
        with run.lock():
            if not run.ended():
                run.record_file.unlink(missing_ok=True)
    except Timeout:
        return  # a worker elsewhere is running it again


def _announce(grid: Grid, folder: StudyFolder) -> None:
    tracking = grid.row(grid.baseline).config.tracking
    if tracking.backend != "mlflow":
        return
    from mhc_lab.tracking import mlflow

    tags = {cell.run_id: {"row": cell.row, "seed": str(cell.seed)} for cell in reversed(grid.cells)}
    mlflow.start_study(folder.results, folder.name, tracking, [folder.run(run_id) for run_id in tags], tags)


def _watch(missing: Sequence[Cell], folder: StudyFolder, launcher: LocalLauncher, display: Display) -> None:
    """Tell of each cell as its record appears, until no worker is left."""
    waiting = list(missing)
    working = True
    while working:
        working = launcher.running() > 0
        for cell in list(waiting):
            record = folder.run(cell.run_id).record()
            if record is not None:
                waiting.remove(cell)
                launcher.finished()
                display.ended(cell, record)
        part = sum(part_done(folder.run(cell.run_id), cell.config.trainer.max_steps) for cell in waiting)
        display.running(min(launcher.running(), len(waiting)), part)
        if working:
            time.sleep(_POLL_SECONDS)


def _failures(grid: Grid, folder: StudyFolder, deaths: Sequence[str]) -> list[str]:
    lines = []
    for cell in grid.cells:
        run = folder.run(cell.run_id)
        record = run.record()
        if record is None:
            lines.append(f"  {cell.row} seed {cell.seed}: no worker was left to run it")
        elif not run.ended():
            lines.append(f"  {cell.row} seed {cell.seed}: {first_line(record['reason'])}; see {run.log_file}")
    if not lines:
        return []
    head = f"{len(lines)} of {len(grid.cells)} cells have no result; the same command tries them again"
    return [head, *lines, *(f"  {death}" for death in deaths)]


def time_rows(folder: StudyFolder, place: Slot) -> None:
    """The timing pass, in a process of its own with nothing beside it."""
    if folder.timed():
        return
    print("timing the rows against the baseline, one after the other", flush=True)
    devices = {} if place.devices is None else {"CUDA_VISIBLE_DEVICES": place.devices}
    done = subprocess.run(
        [sys.executable, "-m", "mhc_lab.training.timing", str(folder.path)],
        env={**safe_environment(), **devices},
        stderr=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "it printed nothing")
        print(f"warning: the timing pass failed, the table has no relative times: {last}", file=sys.stderr, flush=True)


def _report(folder: StudyFolder, command: str) -> list[Path]:
    from mhc_lab.report import export, print_table

    # Whether results of other code are taken was asked before the cells ran.
    exported = export(folder.results, folder.name, allow_mixed=True, command=command)
    print_table(folder.results, folder.name)
    for path in exported.paths:
        if path.suffix not in (".svg", ".png"):
            print(path)
    return exported.paths
