"""A worker's loop: take a trial, run its cell, tell the study; until nothing waits or runs."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import optuna
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder, runs_dir
from mhc_lab.study import child
from mhc_lab.study.cell import Stopped, record_end, run_cell
from mhc_lab.study.storage import (
    MAX_RETRIES,
    WORKER,
    NothingWaits,
    StaleTrial,
    StudyStorage,
    each_run,
    process_name,
    trials,
)

_IDLE_SECONDS = 0.5

_log = logging.getLogger(__name__)


class RunFailed(Exception):
    """The run has no value to tell: its trial fails, the worker goes on."""


class Objective(Protocol):
    """What a worker does with a trial it has taken.

    Raises RunFailed, TrialPruned, Stopped, and UpdateFinishedTrialError where another worker has ended the trial.
    """

    def __call__(self, trial: optuna.Trial) -> float | Sequence[float]: ...


class GridObjective:
    """The objective of a grid's trials, which name their run: there is nothing to suggest."""

    def __init__(self, storage: StudyStorage, results: Path, target: str, stopping: Callable[[], bool]) -> None:
        self._storage, self._results, self._target, self._stopping = storage, results, target, stopping
        self._worker = process_name()

    def __call__(self, trial: optuna.Trial) -> float:
        """Validation loss; infinite where the run diverged."""
        try:
            trial.set_user_attr(WORKER, self._worker)
            self._storage.taken()
            return self._value(trial)
        except LabError as error:
            raise RunFailed(str(error)) from error
        except Stopped:
            # Politely stopped: another worker of the study, or the next command, takes the cell up.
            trial.study.enqueue_trial({}, user_attrs={key: trial.user_attrs[key] for key in ("row", "seed", "run_id")})
            raise

    def _value(self, trial: optuna.Trial) -> float:
        if "row" not in trial.user_attrs:
            raise optuna.TrialPruned("a stray of the sampler, not a cell of the grid")
        folder = RunFolder(runs_dir(self._results) / trial.user_attrs["run_id"])
        record = run_cell(folder, self._target, self._stopping)
        if record["status"] == "finished":
            return float(record["metrics"]["val_loss"])
        if record["status"] == "diverged":
            return math.inf
        raise RunFailed(record["reason"])


def pull(
    results: Path,
    name: str,
    url: str,
    *,
    interval: int,
    grace: int,
    target: str = child.DEFAULT_TARGET,
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Work for the grid `name` until nothing of it waits or runs, or `stopping()`.

    `url` is its Optuna storage; `interval` and `grace` are the heartbeat's, in seconds.
    """

    storage = StudyStorage(url, name, results, interval=interval, grace=grace, exhausted=give_up(results))
    study = storage.open()
    for run_id in itertools.islice(each_run(study, TrialState.WAITING), 1):  # all have one tracking
        tracking = RunFolder(runs_dir(results) / run_id).config().tracking
        child.preload(target, mlflow=tracking.backend == "mlflow")
    work_off(study, storage, GridObjective(storage, results, target, stopping), stopping)


def work_off(study: optuna.Study, storage: StudyStorage, objective: Objective, stopping: Callable[[], bool]) -> None:
    """Take one trial after the other until none waits or runs, or `stopping()`."""
    while not stopping():
        with storage.taking():
            storage.reap(study)
            if trials(study, TrialState.WAITING):
                _take(study, objective)
                continue
        if not trials(study, TrialState.RUNNING):
            return
        time.sleep(_IDLE_SECONDS)


def give_up(results: Path) -> StaleTrial:
    """What becomes of a run whose workers died too often: it is recorded as failed."""

    def exhausted(_: optuna.Study, trial: FrozenTrial) -> None:
        folder = RunFolder(runs_dir(results) / trial.user_attrs["run_id"])
        record_end(folder, "failed", f"its worker died {MAX_RETRIES + 1} times")

    return exhausted


class _Ends:
    """An objective, and whether it ended as objectives do."""

    def __init__(self, objective: Objective) -> None:
        self._objective = objective
        self.well = False

    def __call__(self, trial: optuna.Trial) -> float | Sequence[float]:
        self.well = False
        try:
            found = self._objective(trial)
        except (RunFailed, Stopped, optuna.TrialPruned, UpdateFinishedTrialError):
            self.well = True
            raise
        self.well = True
        return found


def _take(study: optuna.Study, objective: Objective) -> None:
    watched = _Ends(objective)
    try:
        with contextlib.suppress(NothingWaits):
            study.optimize(watched, n_trials=1, catch=(RunFailed, Stopped))
    except (ValueError, AssertionError, UpdateFinishedTrialError):
        # Optuna's words for a trial that cannot be told, as it has ended already.
        if not watched.well:
            raise
        # This machine slept for longer than the grace and another worker requeued the trial; a run's record stands.
        _log.warning("a trial was given up while this worker was silent; what its run has finished is kept")
