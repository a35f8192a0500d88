"""What a sweep has found, read from its storage and its run folders: for its report, and for `ablate --tuned`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from mhc_lab.errors import LabError
from mhc_lab.files import damaged
from mhc_lab.report.provenance import origin
from mhc_lab.report.sweep.data import Objective, State, Sweep, SweepTrial
from mhc_lab.study.folder import StudyFolder, lasting
from mhc_lab.study.space import Point
from mhc_lab.study.spec import Tuned
from mhc_lab.study.storage import StudyStorage, resolve, stored_storage, trials
from mhc_lab.study.sweep_file import SweepSpec
from mhc_lab.study.trial import METRICS, PLACE, REASON, RUNS, START, is_told

FORMATS = ("md", "latex", "csv", "svg", "png", "html")
_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
}


def read_sweep(folder: StudyFolder, storage: str | None = None) -> Sweep:
    """A sweep with all its trials. Raises LabError for an unknown one and for a storage that cannot be reached."""
    content, spec = folder.content(), folder.sweep()
    url = resolve(stored_storage(folder, storage), folder.results)
    study = StudyStorage(url, folder.name, folder.results, interval=10, grace=40).open()
    return Sweep(
        name=folder.name,
        title=spec.title,
        command=content["command"],
        parameters=spec.parameters,
        objectives=tuple(map(Objective, spec.objectives)),
        seeds=spec.seeds,
        overrides=tuple(lasting(spec.overrides)),
        sampler=spec.sampler,
        pruner=spec.pruner,
        budget=spec.trials,
        trials=tuple(_trial(trial, spec, folder) for trial in _standing(study)),
        study=study,
        by=spec.by,
    )


def export_sweep(
    folder: StudyFolder,
    formats: Sequence[str] = FORMATS,
    *,
    command: str,
    storage: str | None = None,
    show: bool = False,
) -> list[Path]:
    """Write a sweep's tables and figures beside its study.json, with their provenance; `show`: print the best too."""
    from mhc_lab.report.sweep import print_sweep, write

    sweep = read_sweep(folder, storage)
    written = write(sweep, folder.path, formats, provenance=_provenance(sweep, folder, command))
    if show:
        print_sweep(sweep)
        for path in written:
            if path.suffix not in (".svg", ".png"):
                print(path)
    return written


def best_by(folder: StudyFolder) -> Tuned:
    """For each value of the key that a sweep tunes apart: the rest of the best point.

    Raises LabError where the sweep has no `by`, or trials without a result: values that were tried less would look
    worse than they are.
    """
    folder.content()  # refuses an unknown study
    if not folder.is_sweep():
        raise LabError(f"--tuned {folder.name}: it is a grid, not a sweep")
    sweep = read_sweep(folder)
    if not sweep.by:
        raise LabError(f"--tuned {folder.name}: the sweep tunes nothing apart: give its file by: residual")
    done = sum(trial.state in ("complete", "pruned", "failed") for trial in sweep.trials)
    if done < sweep.budget:
        raise LabError(
            f"--tuned {folder.name}: {done} of {sweep.budget} trials have a result; let it end: {sweep.command}"
        )
    best: dict[Any, Point] = {}
    for trial in sweep.ranked:
        point = dict(trial.params)
        best.setdefault(point.pop(sweep.by), point)
    if not best:
        raise LabError(f"--tuned {folder.name}: none of its trials finished: there is no best one")
    return Tuned(folder.name, sweep.by, best, tuple(sweep.seeds))


def _standing(study: Study) -> list[FrozenTrial]:
    """The trials that count: the last of each place. Those before it were cut off, and taken up again."""
    latest: dict[Any, FrozenTrial] = {}
    for trial in trials(study):
        place = trial.user_attrs.get(PLACE)
        if place is None:
            continue  # a stray beyond the budget
        held = latest.get(place)
        if held is None or held.state == TrialState.FAIL or trial.state != TrialState.FAIL:
            latest[place] = trial
    return sorted(latest.values(), key=lambda trial: trial.number)


def _trial(trial: FrozenTrial, spec: SweepSpec, folder: StudyFolder) -> SweepTrial:
    for parameter in spec.parameters:
        value = trial.params.get(parameter.key)
        if parameter.kind == "choices" and value is not None and value not in parameter.choices:
            raise damaged(folder.study_file, f"its space lacks what trial {trial.number} had for {parameter.key}")
    records = {int(seed): folder.run(run_id).record() or {} for seed, run_id in trial.user_attrs.get(RUNS, {}).items()}
    measured = trial.user_attrs.get(METRICS) or {
        seed: record["metrics"] for seed, record in records.items() if record.get("status") == "finished"
    }
    # What was cut off is to be taken up again.
    state = _STATES[trial.state] if is_told(trial) or not trial.state.is_finished() else "waiting"
    return SweepTrial(
        number=trial.number,
        state=state,
        params=trial.params,
        values=tuple(trial.values) if state == "complete" else None,
        by_seed={int(seed): metrics for seed, metrics in measured.items()},
        intermediate=trial.intermediate_values,
        reason=_reason(trial, records),
        enqueued=spec.sampler["name"] != "grid" and START in trial.user_attrs,
        started="" if trial.datetime_start is None else trial.datetime_start.isoformat(timespec="seconds"),
        seconds=sum(float(record.get("seconds", 0.0)) for record in records.values()),
    )


def _reason(trial: FrozenTrial, records: Mapping[int, Mapping[str, Any]]) -> str:
    if trial.state == TrialState.FAIL:
        return str(trial.user_attrs.get(REASON, ""))
    if trial.state == TrialState.PRUNED:
        return next((str(r["reason"]) for r in records.values() if r.get("status") == "pruned"), "pruned between seeds")
    return ""


def _provenance(sweep: Sweep, folder: StudyFolder, command: str) -> dict[str, Any]:
    run_ids = [run_id for trial in _standing(sweep.study) for run_id in trial.user_attrs.get(RUNS, {}).values()]
    records = [record for run_id in dict.fromkeys(run_ids) if (record := folder.run(run_id).record()) is not None]
    return {
        "study": sweep.name,
        "kind": "sweep",
        "command": sweep.command,
        "export_command": command or None,
        "overrides": list(sweep.overrides),
        "sampler": dict(sweep.sampler),
        "pruner": dict(sweep.pruner),
        **origin(records),
        "runs": {str(trial.number): trial.user_attrs.get(RUNS, {}) for trial in _standing(sweep.study)},
    }
