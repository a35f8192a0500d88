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
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich.console import Console

from mhc_lab.command import command_line
from mhc_lab.config.run_id import run_id
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.disk import DiskFull
from mhc_lab.errors import LabError, RunsFailed
from mhc_lab.study import definition
from mhc_lab.study.folder import OtherCode, StudyFolder
from mhc_lab.study.holding import alone, concluded
from mhc_lab.study.keys import typed
from mhc_lab.study.launchers.local import LocalLauncher, Slot, slots
from mhc_lab.study.plan import whole_seconds
from mhc_lab.study.progress import Display
from mhc_lab.study.ready import COMPILING, kernels_are_cold
from mhc_lab.study.signals import interruptible, undisturbed
from mhc_lab.study.space import Point
from mhc_lab.study.storage import StudyStorage, close, resolve, stored_storage, trials, without_password
from mhc_lab.study.sweep_file import SweepSpec, load_sweep
from mhc_lab.study.trial import CHOICE, DIED, PLACE, REASON, START, answers, is_told, target_of
from mhc_lab.units import duration

_POLL_SECONDS = 1.0
_LIVE = (TrialState.WAITING, TrialState.RUNNING)
_BESIDE = "give this one another name with --study NAME to keep both"
_GO_ON = "--keep goes on with them, --study NAME begins anew"


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
    rerun: bool = False,
    keep: bool = False,
) -> Path:
    """Run what a sweep's budget lacks, print what it says and write it into the study's folder, which is returned.

    `overrides` are fixed in all trials. `storage` is an Optuna URL, by default an sqlite file under `results`. `keep`
    goes on with trials and runs of other code, `rerun` runs such runs again. `dry_run` prints what would be done.

    Raises LabError for bad input, RunsFailed where runs died (after the report is written), and StudyInterrupted on
    Ctrl-C and SIGTERM: the same command then goes on.
    """
    if rerun and keep:
        raise LabError("--rerun and --keep exclude each other")
    other_code: OtherCode = "rerun" if rerun else "keep" if keep else "ask"
    fixed = typed(overrides, workers, tracking_uri)
    spec = load_sweep(name, trials=trials, seeds=seeds, overrides=fixed, config_dir=config_dir)
    folder = StudyFolder(results, study or spec.name)
    stored = folder.stored()
    if stored is not None and stored.get("kind") != "sweep":
        raise LabError(f"study '{folder.name}' is a grid: choose another name with --study NAME")
    base = spec.base
    places = slots(base)
    if dry_run:
        _print_plan(spec, folder, len(places))
        return folder.path
    with interruptible(), alone(folder), concluded(folder, base.tracking) as ending:
        command = command_line()
        died = run_trials(spec, folder, places, storage=storage, other_code=other_code, command=command)
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
    other_code: OtherCode = "ask",
    command: str = "",
    target: str = "",
) -> list[str]:
    """Fill the places of a sweep's budget; lines about trials whose runs died.

    `other_code`: what becomes of results that other code made. `target` is the "module:function" that a child process
    calls with its RunFolder.
    """
    kept = stored_storage(folder, storage)
    url = resolve(kept, folder.results)
    launcher = spec.base.launcher
    study_storage = StudyStorage(
        url, folder.name, folder.results, interval=launcher.heartbeat_interval, grace=launcher.heartbeat_grace
    )
    study = study_storage.create(len(spec.objectives))
    definition.check(study, spec, keep=other_code == "keep", mend=_BESIDE, mend_code=_GO_ON)
    to_fill, beyond = open_places(study, spec)
    if other_code == "ask":
        _refuse_other_code(to_fill, spec, folder)
    definition.sign(study, spec)
    folder.write_sweep(spec, storage=without_password(kept), command=command, other_code=other_code)
    _announce(spec, folder)
    with study_storage.taking():
        study_storage.reap(study)
        enqueue(study, spec)
    left = len(trials(study, *_LIVE))
    deaths: list[str] = []
    with Display(folder.name, spec.trials, max(0, spec.trials - left)) as display:
        display.say(f"sweep {folder.name}: {spec.trials} trials, {max(0, spec.trials - left)} done, {left} to run")
        if left and kernels_are_cold(spec.base):
            display.say(COMPILING)
        if beyond:
            display.say(f"{beyond} starting points lie beyond the budget: give more --trials")
        if left:
            told = {trial.number for trial in trials(study) if trial.state not in _LIVE}
            workers = LocalLauncher(folder.results, folder.name, url, spec.base, places, target or target_of(spec))
            try:
                _watch(study, told, workers, display)
            finally:
                with undisturbed():
                    workers.stop()
            deaths = workers.deaths()
            if workers.disk_full():
                raise DiskFull(folder.results)
    return _failures(study, spec, deaths)


@dataclass(frozen=True)
class Open:
    """A place of the budget to fill, the point to begin at ({}: the sampler's) and the starting point that this is."""

    place: int
    point: Point
    start: Point | None


def open_places(study: optuna.Study, spec: SweepSpec) -> tuple[list[Open], int]:
    """The places in which no trial waits, runs or has answered, and how many starting points find no place.

    A place whose trials were cut off or died gets its point again.
    """
    held = _by_place(study)
    begun = {_text(trial.user_attrs[START]) for own in held.values() for trial in own if START in trial.user_attrs}
    waiting = [point for point in spec.starting_points if _text(point) not in begun]
    found = []
    for place in range(spec.trials):
        own = held[place]
        if any(answers(trial) for trial in own):
            continue
        start = own[-1].user_attrs.get(START) if own else waiting.pop(0) if waiting else None
        taken = own[-1].params if own else {}
        found.append(Open(place, taken or start or {}, start))
    return found, len(waiting)


def _by_place(study: optuna.Study) -> dict[int, list[FrozenTrial]]:
    """All trials of each place, in their order; strays, which have none, are left out."""
    held: dict[int, list[FrozenTrial]] = defaultdict(list)
    for trial in trials(study):
        if PLACE in trial.user_attrs:
            held[trial.user_attrs[PLACE]].append(trial)
    return held


def enqueue(study: optuna.Study, spec: SweepSpec) -> None:
    """Queue a trial for each open place, and close those that wait beyond the budget."""
    for trial in trials(study, TrialState.WAITING):
        if trial.user_attrs.get(PLACE, 0) >= spec.trials:
            close(study, trial)
    for one in open_places(study, spec)[0]:
        start = {} if one.start is None else {START: one.start}
        study.enqueue_trial(one.point, user_attrs={PLACE: one.place, **start})


def _refuse_other_code(places: Sequence[Open], spec: SweepSpec, folder: StudyFolder) -> None:
    """LabError where results of other code stand for points that are known before they are sampled."""
    found = 0
    for one in places:
        if all(p.key in one.point for p in spec.parameters if p.wanted(one.point)):
            config = spec.config(one.point)
            for seed in spec.seeds:
                seeded = replace(config, seed=seed)
                found += bool(folder.run(run_id(seeded, corpus_fingerprint(seeded))).other_code())
    if found:
        raise LabError(f"{found} of the runs to come have a result of other code than now: {CHOICE}")


def _text(point: Point) -> str:
    return json.dumps(point, sort_keys=True)


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
            workers.finished()
            if is_told(trial):  # else it was cut off, and is queued again
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
    held = _by_place(study)
    lacking = [held[place] for place in range(spec.trials) if not any(map(answers, held[place]))]
    died = [own[-1] for own in lacking if own and own[-1].user_attrs.get(DIED)]
    unfinished = len(lacking) - len(died) + len(trials(study, *_LIVE))
    lines = [f"  trial {trial.number}: {trial.user_attrs[REASON]}" for trial in died]
    if unfinished:
        lines.append(f"  {unfinished} trials have no result")
    if not lines:
        return _none_finished(study)
    head = f"{len(died)} of {spec.trials} trials failed; the same command goes on"
    return [head, *lines, *(f"  {death}" for death in deaths)]


def _none_finished(study: optuna.Study) -> list[str]:
    """A line where every trial diverged: an answer, but nothing to choose from."""
    told = [trial for trial in trials(study) if is_told(trial)]
    if any(trial.state != TrialState.FAIL for trial in told):
        return []
    return [f"no trial finished: {len(told)} of {len(told)} failed; {told[-1].user_attrs.get(REASON, '')}".rstrip("; ")]


def _print_plan(spec: SweepSpec, folder: StudyFolder, workers: int) -> None:
    """The space, the search and its size, without touching anything."""
    console = Console(soft_wrap=True, highlight=False)
    console.print(f"{folder.name}: {spec.title}", markup=False)
    for parameter in spec.parameters:
        when = "".join(f", when {key} is {' or '.join(map(str, values))}" for key, values in parameter.when.items())
        console.print(f"  {parameter.key}: {parameter.kind} {parameter.words}{when}", markup=False)
    arguments = ", ".join(f"{key}={value}" for key, value in spec.sampler.items() if key != "name")
    runs = spec.trials * len(spec.seeds)
    console.print(f"  minimise {' and '.join(spec.objectives)} by {spec.sampler['name']} ({arguments})", markup=False)
    console.print(f"  pruner {spec.pruner['name']}, {len(spec.enqueue)} starting points", markup=False)
    from mhc_lab.training.timing import time_rows

    timed = time_rows({"first": spec.base}, {"first": "first"}, steps=3)["rows"].get("first")
    about = ""
    if timed is not None:
        one = timed["ms_per_step"] / 1000 * spec.base.trainer.max_steps
        about = f", about {duration(whole_seconds([one] * runs, workers))} if none is pruned"
    console.print(
        f"{spec.trials} trials x {len(spec.seeds)} seeds = {runs} runs with {workers} "
        f"worker{'s' if workers > 1 else ''}{about}",
        markup=False,
    )
