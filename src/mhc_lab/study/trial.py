"""A worker's loop over the trials of a sweep: a point of the space, a run a seed, the mean as the trial's value."""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from filelock import Timeout
from optuna.trial import FrozenTrial, TrialState

from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder
from mhc_lab.study import child, definition
from mhc_lab.study.cell import Judge, Stopped, run_cell
from mhc_lab.study.folder import OtherCode
from mhc_lab.study.pull import RunFailed, work_off
from mhc_lab.study.samplers import build_pruner, build_sampler, suggest
from mhc_lab.study.storage import STOPPED, WORKER, StudyStorage, process_name, trials
from mhc_lab.study.sweep_file import SweepSpec

# User attributes of a trial. START: the starting point that it stands for.
PLACE, START, RUNS, METRICS, REASON, DIED = "place", "start", "runs", "metrics", "reason", "died"

CHOICE = "--rerun runs it again, --keep takes it as it is"  # of a result that other code made


class SweepObjective:
    """The objective of a sweep's trials."""

    def __init__(
        self,
        spec: SweepSpec,
        study: str,
        storage: StudyStorage,
        results: Path,
        target: str,
        stopping: Callable[[], bool],
        other_code: OtherCode = "ask",
    ) -> None:
        self._other_code = other_code
        self._spec, self._study, self._storage, self._results = spec, study, storage, results
        self._target, self._stopping = target, stopping
        self._worker = process_name()
        self._steps_judged = spec.pruner["name"] == "hyperband"
        self._seeds_judged = spec.pruner["name"] == "wilcoxon"

    def __call__(self, trial: optuna.Trial) -> list[float]:
        """The objectives, each the mean over the seeds.

        A run that diverged or died makes a failed trial, with the reason as its attribute; the sweep goes on.
        """
        try:
            trial.set_user_attr(WORKER, self._worker)
            if PLACE not in trial.user_attrs or _doubled(trial):
                # No place: another worker took the last waiting trial, and Optuna made one beyond the budget.
                self._storage.taken()
                raise RunFailed("its place is filled by another trial")
            point = suggest(trial, self._spec.parameters)
            self._storage.taken()
            return self._values(trial, point)
        except Stopped:
            # Politely stopped: another worker, or the next command, takes the point up.
            trial.set_user_attr(STOPPED, True)
            kept = {key: trial.user_attrs[key] for key in (PLACE, START) if key in trial.user_attrs}
            trial.study.enqueue_trial(trial.params, user_attrs=kept)
            raise
        except LabError as error:
            raise self._failed(trial, str(error), died=True) from error

    def _values(self, trial: optuna.Trial, point: dict[str, Any]) -> list[float]:
        found: dict[str, dict[str, Any]] = {}
        folders = [self._folder(point, seed) for seed in self._spec.seeds]
        trial.set_user_attr(RUNS, {str(s): f.run_id for s, f in zip(self._spec.seeds, folders, strict=True)})
        for index, (seed, folder) in enumerate(zip(self._spec.seeds, folders, strict=True)):
            self._prepare(folder)
            self._mirror(trial, seed, folder)
            record = run_cell(folder, self._target, self._stopping, self._judge(trial) if self._steps_judged else None)
            if record["status"] == "pruned":
                raise optuna.TrialPruned(record["reason"])
            if record["status"] != "finished":
                told = f"seed {seed}: {record['status']}: {record['reason']}"
                raise self._failed(trial, told, died=record["status"] != "diverged")
            found[str(seed)] = record["metrics"]
            trial.set_user_attr(METRICS, found)  # the run folder may lie on another machine than the report's
            if self._steps_judged:
                self._report_rest(trial, folder)
            if self._seeds_judged:
                trial.report(record["metrics"]["val_loss"], index)
                if index + 1 < len(folders) and trial.should_prune():
                    raise optuna.TrialPruned(f"behind the best trial after {index + 1} seeds")
        return [self._mean(trial, metric, list(found.values())) for metric in self._spec.objectives]

    def _mean(self, trial: optuna.Trial, metric: str, found: list[dict[str, Any]]) -> float:
        values = [metrics.get(metric) for metrics in found]
        known = [value for value in values if value is not None and math.isfinite(value)]
        if len(known) < len(values):
            raise self._failed(trial, f"a run has no {metric}", died=True)
        return statistics.fmean(known)

    def _folder(self, point: dict[str, Any], seed: int) -> RunFolder:
        config = self._spec.config(point, seed)
        return RunFolder.create(self._results, config, corpus_fingerprint(config))

    def _prepare(self, folder: RunFolder) -> None:
        """Forget what the run of a killed worker has asked, and a result of other code where that was chosen."""
        with contextlib.suppress(Timeout), folder.lock():  # held: somebody is running it already
            folder.end_questions()
            if self._other_code == "keep" or not folder.other_code():
                return
            if self._other_code == "ask":
                raise LabError(f"{folder.path} has a result of other code: {CHOICE}")
            folder.clear()

    def _mirror(self, trial: optuna.Trial, seed: int, folder: RunFolder) -> None:
        """The run becomes a child of the sweep's MLflow run, tagged with its trial."""
        tracking = folder.config().tracking
        if tracking.backend == "mlflow":
            from mhc_lab.tracking import mlflow

            point = ", ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in trial.params.items())
            tags = {"row": f"trial {trial.number}", "trial": str(trial.number), "seed": str(seed), "point": point}
            mlflow.adopt(self._results, self._study, tracking, [folder], {folder.run_id: tags})

    def _judge(self, trial: optuna.Trial) -> Judge:
        def judge(step: int, val_loss: float) -> bool:
            trial.report(val_loss, step)
            return trial.should_prune()

        return judge

    def _report_rest(self, trial: optuna.Trial, folder: RunFolder) -> None:
        """What the pruner has not been asked about: the last step, and all of a run that was there already."""
        reported = trial.study._storage.get_trial(trial._trial_id).intermediate_values
        for line in folder.metrics():
            if "val_loss" in line and line["step"] not in reported:
                trial.report(line["val_loss"], line["step"])

    def _failed(self, trial: optuna.Trial, reason: str, *, died: bool) -> RunFailed:
        trial.set_user_attr(REASON, reason)
        trial.set_user_attr(DIED, died)
        return RunFailed(reason)


def is_told(trial: FrozenTrial) -> bool:
    """Whether a trial has ended by its own doing, and was not cut off."""
    return trial.state.is_finished() and (trial.state != TrialState.FAIL or REASON in trial.user_attrs)


def answers(trial: FrozenTrial) -> bool:
    """Whether a trial fills its place: it waits, runs, or has told what its point is worth; NaN is an answer.

    One that was cut off or died does not: its point is tried again.
    """
    if STOPPED in trial.user_attrs:
        return False
    return not trial.state.is_finished() or (is_told(trial) and not trial.user_attrs.get(DIED))


def _doubled(trial: optuna.Trial) -> bool:
    """Whether an earlier trial fills the same place: a server that is restarted may have queued it twice."""
    return any(
        other.user_attrs.get(PLACE) == trial.user_attrs[PLACE] and other.number < trial.number and answers(other)
        for other in trials(trial.study)
    )


def pull_trials(
    spec: SweepSpec,
    results: Path,
    name: str,
    url: str,
    *,
    interval: int,
    grace: int,
    target: str = child.DEFAULT_TARGET,
    other_code: OtherCode = "ask",
    stopping: Callable[[], bool] = lambda: False,
) -> None:
    """Work for the sweep `name` until none of its trials waits or runs, or `stopping()`; arguments as of `pull`.

    Raises LabError where this worker's code, corpus or configuration are not those of the trials. `other_code`: what
    becomes of runs that have a result of other code; "ask" fails their trials.
    """
    storage = StudyStorage(url, name, results, interval=interval, grace=grace)
    study = storage.open()
    mend = "give this worker the code, corpus and configuration files of the command that began it"
    definition.check(study, spec, keep=other_code != "ask", mend=mend, mend_code=mend)
    base = spec.base
    study.sampler = build_sampler(spec.sampler)
    study.pruner = build_pruner(spec.pruner, base.trainer.max_steps)
    child.preload(target, mlflow=base.tracking.backend == "mlflow")
    objective = SweepObjective(spec, name, storage, results, target, stopping, other_code)
    work_off(study, storage, objective, stopping)


def target_of(spec: SweepSpec) -> str:
    """What a run's child process calls."""
    return child.JUDGED_TARGET if spec.pruner["name"] == "hyperband" else child.DEFAULT_TARGET


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
