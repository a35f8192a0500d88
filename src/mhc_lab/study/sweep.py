"""`sweep`: a search space becomes an Optuna study whose trials are queued; workers sample, train and tell.

The budget is a queue of so many places: a trial that waits, runs or has ended stands in each. What a sampler proposes
is decided when a worker takes the trial; a dead worker's point goes back into the queue as it was. So any number of
workers on any number of machines do exactly the trials that were asked for.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mhc_lab.command import command_line
from mhc_lab.config.run_id import code_fingerprint
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError, RunsFailed
from mhc_lab.run_folder import read_json
from mhc_lab.study.child import DEFAULT_TARGET, JUDGED_TARGET
from mhc_lab.study.engine import stored_storage
from mhc_lab.study.folder import StudyFolder, lasting
from mhc_lab.study.holding import alone, concluded
from mhc_lab.study.launchers.local import LocalLauncher, Slot, slots
from mhc_lab.study.progress import Display, duration
from mhc_lab.study.signals import interruptible, undisturbed
from mhc_lab.study.space import Point
from mhc_lab.study.storage import StudyStorage, resolve, trials, without_password
from mhc_lab.study.sweep_file import SweepSpec, differences, load_sweep
from mhc_lab.study.trial import DIED, PLACE, REASON, stands

_POLL_SECONDS = 1.0
_DEFINITION, _CODE = "mhc_lab:sweep", "mhc_lab:code"  # user attributes of the study
_LIVE = (TrialState.WAITING, TrialState.RUNNING)


def sweep(
    name: str,
    *,
    trials: int | None = None,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    study: str | None = None,
    workers: int | None = None,
    storage: str | None = None,
    tracking_uri: str | None = None,
    results: Path = Path("results"),
    config_dir: Path | None = None,
    dry_run: bool = False,
    keep: bool = False,
) -> Path:
    """Run what a sweep's budget lacks, print what it says and write it into the study's folder, which is returned.

    `overrides` are fixed in all trials. `storage` is an Optuna URL, by default an sqlite file under `results`. `keep`
    goes on with trials and runs of other code. `dry_run` prints what would be done.

    Raises LabError for bad input, RunsFailed where runs died (after the report is written), and StudyInterrupted on
    Ctrl-C and SIGTERM: the same command then goes on.
    """
    fixed = [*overrides]
    fixed += [f"launcher.workers={workers}"] if workers is not None else []
    fixed += [f"tracking.uri={tracking_uri}"] if tracking_uri is not None else []
    spec = load_sweep(name, trials=trials, seeds=seeds, overrides=fixed, config_dir=config_dir)
    folder = StudyFolder(results, study or spec.name)
    stored = read_json(folder.study_file)
    if stored is not None and stored.get("kind") != "sweep":
        raise LabError(f"study '{folder.name}' is a grid: choose another name with --study NAME")
    base = spec.base
    places = slots(base)
    if dry_run:
        _print_plan(spec, folder, len(places))
        return folder.path
    with interruptible(), alone(folder), concluded(folder, base.tracking) as ending:
        command = command_line()
        died = run_trials(spec, folder, places, storage=storage, keep=keep, command=command)
        from mhc_lab.study.outcome import export_sweep

        ending.artifacts = export_sweep(folder, command=command, storage=storage, show=True)
        ending.status = "FAILED" if died else "FINISHED"
    if died:
        raise RunsFailed("\n".join(died))
    return folder.path


def run_trials(
    spec: SweepSpec,
    folder: StudyFolder,
    places: Sequence[Slot],
    *,
    storage: str | None = None,
    keep: bool = False,
    command: str = "",
    target: str = "",
) -> list[str]:
    """Fill the places of a sweep's budget; lines about trials whose runs died.

    `target` is the "module:function" that a child process calls with its RunFolder.
    """
    kept = stored_storage(folder, storage)
    url = resolve(kept, folder.results)
    launcher = spec.base.launcher
    study_storage = StudyStorage(
        url, folder.name, folder.results, interval=launcher.heartbeat_interval, grace=launcher.heartbeat_grace
    )
    study = study_storage.create(spec.objectives)
    _check(study, spec, keep=keep)
    folder.write_sweep(spec, storage=without_password(kept), command=command, keep=keep)
    _announce(spec, folder)
    with study_storage.taking():
        study_storage.reap(study)
        enqueue(study, spec)
    left = len(trials(study, *_LIVE))
    target = target or (JUDGED_TARGET if spec.pruner["name"] == "hyperband" else DEFAULT_TARGET)
    deaths: list[str] = []
    with Display(folder.name, spec.trials, max(0, spec.trials - left)) as display:
        display.say(f"sweep {folder.name}: {spec.trials} trials, {max(0, spec.trials - left)} done, {left} to run")
        if left:
            told = {trial.number for trial in trials(study) if trial.state not in _LIVE}
            workers = LocalLauncher(folder.results, folder.name, url, spec.base, places, target)
            try:
                _watch(study, told, workers, display)
            finally:
                with undisturbed():
                    workers.stop()
            deaths = workers.deaths()
    return _failures(study, spec, deaths)


def enqueue(study: optuna.Study, spec: SweepSpec) -> None:
    """Queue a trial for each place of the budget in which none waits, runs or has ended.

    A place whose trials were all cut off gets its point again.
    """
    standing: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial in trials(study):
        standing[trial.user_attrs.get(PLACE, -1 - trial.number)].append(trial)
    starting = spec.starting_points
    for place in range(spec.trials):
        held = standing.get(place, [])
        if any(stands(trial) for trial in held):
            continue
        point: Point = starting[place] if place < len(starting) else {}
        point = held[-1].params or point if held else point
        study.enqueue_trial(point, user_attrs={PLACE: place})


def _check(study: optuna.Study, spec: SweepSpec, *, keep: bool) -> None:
    """Refuse to mix: another space in the same study, or trials of other code."""
    now = definition(spec)
    attributes = study.user_attrs
    if _DEFINITION in attributes:
        told = list(differences(attributes[_DEFINITION], now))
        if told:
            raise LabError(
                f"study '{study.study_name}' was made with another sweep ({'; '.join(told[:3])}); "
                f"keep it and put this one beside it with --study NAME"
            )
    elif trials(study):
        raise LabError(f"study '{study.study_name}' in the storage is no sweep: choose another name with --study NAME")
    code = attributes.get(_CODE)
    if code not in (None, code_fingerprint()) and not keep:
        raise LabError(
            f"the trials of '{study.study_name}' were made with other code than now ({code_fingerprint()}): "
            f"--keep goes on with them, --study NAME begins anew"
        )
    study.set_user_attr(_DEFINITION, now)
    study.set_user_attr(_CODE, code_fingerprint())


def definition(spec: SweepSpec) -> dict[str, Any]:
    """What makes two sweeps one study; the budget and the starting points may grow."""
    space = {parameter.key: _range(parameter) for parameter in spec.parameters}
    content = {
        "space": space,
        "objectives": list(spec.objectives),
        "overrides": lasting(spec.overrides),
        "sampler": dict(spec.sampler),
        "pruner": dict(spec.pruner),
        "seeds": list(spec.seeds),
        "corpus": corpus_fingerprint(spec.base),  # that of another machine may be another one
    }
    normal: dict[str, Any] = json.loads(json.dumps(content))  # as the database gives it back
    return normal


def _range(parameter: Any) -> str:
    when = "".join(f", when {key} is {' or '.join(map(str, values))}" for key, values in parameter.when.items())
    return f"{parameter.kind} {parameter.words}{when}"


def _announce(spec: SweepSpec, folder: StudyFolder) -> None:
    tracking = spec.base.tracking
    if tracking.backend == "mlflow":
        from mhc_lab.tracking import mlflow

        mlflow.start_study(folder.results, folder.name, tracking, [], {})


def _watch(study: optuna.Study, told: set[int], workers: LocalLauncher, display: Display) -> None:
    """Tell of each trial as it ends, until no worker is left."""
    working = True
    while working:
        working = workers.running() > 0
        for trial in trials(study):
            if trial.state in _LIVE or trial.number in told:
                continue
            told.add(trial.number)
            if stands(trial):  # else it was cut off, and is queued again
                failed = trial.state == TrialState.FAIL
                seconds = trial.duration.total_seconds() if trial.duration else 0.0
                display.count(f"trial {trial.number}  {_params(trial)}", _outcome(study, trial), seconds, failed=failed)
        display.running(len(trials(study, TrialState.RUNNING)))
        if working:
            time.sleep(_POLL_SECONDS)


def _outcome(study: optuna.Study, trial: FrozenTrial) -> str:
    if trial.state == TrialState.COMPLETE:
        names = study.metric_names or ["value"]
        return "  ".join(f"{name} {value:.4f}" for name, value in zip(names, trial.values, strict=True))
    if trial.state == TrialState.PRUNED:
        steps = trial.intermediate_values
        last = max(steps, default=None)
        return "pruned" if last is None else f"pruned at {last} ({steps[last]:.4f})"
    return f"failed: {trial.user_attrs.get(REASON, 'its worker died')}"


def _params(trial: FrozenTrial) -> str:
    return "  ".join(
        f"{key.rpartition('.')[2]}={value:.4g}" if isinstance(value, float) else f"{key.rpartition('.')[2]}={value}"
        for key, value in trial.params.items()
    )


def _failures(study: optuna.Study, spec: SweepSpec, deaths: Sequence[str]) -> list[str]:
    """Runs that died are for the user to look at; a diverged one is an answer."""
    failed = [trial for trial in trials(study, TrialState.FAIL) if trial.user_attrs.get(DIED)]
    filled = {trial.user_attrs.get(PLACE) for trial in trials(study) if stands(trial) and trial.state not in _LIVE}
    open_places = spec.trials - len(filled & set(range(spec.trials)))
    lines = [f"  trial {trial.number}: {trial.user_attrs[REASON]}" for trial in failed]
    if open_places:
        lines.append(f"  {open_places} trials have no result; the same command goes on with them")
    if not lines:
        return []
    return [f"{len(failed)} of {spec.trials} trials failed", *lines, *(f"  {death}" for death in deaths)]


def _print_plan(spec: SweepSpec, folder: StudyFolder, workers: int) -> None:
    """The space, the search and its size, without touching anything."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{folder.name}: {spec.title}", markup=False)
    for parameter in spec.parameters:
        console.print(f"  {parameter.key}: {_range(parameter)}", markup=False)
    arguments = ", ".join(f"{key}={value}" for key, value in spec.sampler.items() if key != "name")
    runs = spec.trials * len(spec.seeds)
    console.print(f"  minimise {' and '.join(spec.objectives)} by {spec.sampler['name']} ({arguments})", markup=False)
    console.print(f"  pruner {spec.pruner['name']}, {len(spec.enqueue)} starting points", markup=False)
    from mhc_lab.training.timing import time_rows

    timed = time_rows({"first": spec.base}, {"first": "first"}, steps=3)["rows"].get("first")
    seconds = None if timed is None else timed["ms_per_step"] / 1000 * spec.base.trainer.max_steps * runs / workers
    about = "" if seconds is None else f", about {duration(seconds)} if none is pruned"
    console.print(
        f"{spec.trials} trials x {len(spec.seeds)} seeds = {runs} runs with {workers} "
        f"worker{'s' if workers > 1 else ''}{about}",
        markup=False,
    )
