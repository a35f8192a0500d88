"""Sweeps on sqlite with stand-ins for training."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections import Counter

import fake_runs
import optuna
import pytest
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import TrialState

from mhc_lab.errors import LabError
from mhc_lab.identity.code import Code
from mhc_lab.run_folder import RunFolder, write_json
from mhc_lab.study.definition import code as sweep_code
from mhc_lab.study.outcome import best_by, read_sweep
from mhc_lab.study.storage import DEFAULT_STORAGE, resolve
from mhc_lab.study.sweep import enqueue
from mhc_lab.study.sweep_file import SweepSpec
from mhc_lab.study.trial import CHOICE, DIED, PLACE, REASON, RUNS, SweepObjective
from mhc_lab.study.worker import work

LEARNING_RATE, T_MAX = "optim.learning_rate", "residual.t_max"
FAST = {"name": "qmc", "seed": 3}  # nothing to compute
STARTS = [{LEARNING_RATE: 0.001, T_MAX: t_max} for t_max in (7, 8, 9, 10)]


def _points(search, study: str = "search") -> list[dict]:
    return [trial.params for trial in search.trials(study)]


def _places(search, *states: TrialState) -> list[int]:
    return sorted(trial.user_attrs[PLACE] for trial in search.trials() if trial.state in states)


@pytest.mark.parametrize(
    "workers", [1, pytest.param(2, marks=pytest.mark.slow), pytest.param(4, marks=pytest.mark.slow)]
)
def test_exactly_as_many_trials_as_were_asked_for(search, workers):
    assert search.run(trials=6, workers=workers) == []
    trials = search.trials()
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert sorted(trial.user_attrs[PLACE] for trial in trials) == list(range(6))
    for trial in trials:
        (run,) = search.runs(trial)
        assert fake_runs.begun(run) == 1
        assert trial.value == fake_runs.valley_metrics(run)["val_loss"]
        assert run.config().optim.learning_rate == trial.params[LEARNING_RATE]
        assert run.config().residual.t_max == trial.params[T_MAX]


def test_repeating_runs_nothing_and_more_trials_go_on(search, capfd):
    assert search.run(trials=3) == []
    first = _points(search)
    capfd.readouterr()
    assert search.run(trials=3) == []
    assert capfd.readouterr().out == "sweep search: 3 trials, 3 done, 0 to run\n"
    assert search.run(trials=2) == []
    assert _points(search) == first
    assert search.run(trials=5) == []
    assert _points(search)[:3] == first
    assert _places(search, TrialState.COMPLETE) == [0, 1, 2, 3, 4]
    assert search.folder().content()["spec"]["trials"] == 5


@pytest.mark.parametrize("sampler", ["tpe", "qmc"])
def test_one_worker_repeats_itself_exactly(search, sampler):
    """Also where the budget grew in two steps."""
    spec: dict = {"name": sampler, "seed": 5}
    if sampler == "tpe":
        spec["n_startup_trials"] = 2
    search.run(trials=2, study="one", sampler=spec)
    search.run(trials=4, study="one", sampler=spec)
    search.run(trials=4, study="two", sampler=spec)
    search.run(trials=1, study="other", sampler=spec | {"seed": 6})
    assert _points(search, "one") == _points(search, "two")
    assert _points(search, "one")[0] != _points(search, "other")[0]
    assert len(set(map(_text, _points(search, "one")))) == 4


@pytest.mark.slow
def test_the_trial_of_a_killed_worker_is_done_again_by_another(search):
    starts = STARTS[:1]
    target = "valley_that_kills_its_worker_once_at_7"
    assert search.run(target, workers=2, trials=5, enqueue=starts) == []
    first, again = [trial for trial in search.trials() if trial.user_attrs[PLACE] == 0]
    assert (first.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert first.params == again.params == STARTS[0]
    assert _places(search, TrialState.COMPLETE) == [0, 1, 2, 3, 4]
    (run,) = search.runs(again)
    assert (fake_runs.begun(run), fake_runs.ended(run)) == (2, 1)


@pytest.mark.slow
def test_what_a_killed_worker_left_is_done_by_the_one_in_its_place(search):
    target = "valley_that_kills_its_worker_once_at_7"
    assert search.run(target, trials=3, enqueue=STARTS[:1], launched=True) == []
    assert sorted(_places(search, TrialState.COMPLETE)) == [0, 1, 2]
    read = read_sweep(search.folder()).trials  # the trial that was taken up again counts once
    assert [trial.state for trial in read] == ["complete"] * 3


@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_and_loses_nothing(search):
    search.spec(trials=24)
    command = subprocess.Popen(
        [sys.executable, "-c", COMMAND, str(search.file), str(search.results)],
        # The tests may run in the background, where shells have Ctrl-C ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    runs = search.results / "runs"
    try:
        deadline = time.monotonic() + 60
        while len(list(runs.glob("*/ended"))) < 3:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        command.send_signal(signal.SIGINT)
    assert command.wait(60) == 130
    finished = {t.number: (t.params, t.value) for t in search.trials() if t.state == TrialState.COMPLETE}
    assert 1 <= len(finished) < 24
    assert TrialState.RUNNING not in {trial.state for trial in search.trials()}
    stopped = [t for t in search.trials() if t.state == TrialState.FAIL]
    assert search.run(trials=24) == []
    after = search.trials()
    assert {number: (after[number].params, after[number].value) for number in finished} == finished
    assert _places(search, TrialState.COMPLETE) == list(range(24))
    for trial in stopped:  # its point is tried all the same
        assert [t.params for t in after if t.user_attrs[PLACE] == trial.user_attrs[PLACE]] == [trial.params] * 2
    assert {fake_runs.ended(run) for trial in after for run in search.runs(trial)} == {1}


def test_a_diverged_run_is_a_failed_trial_and_a_dead_one_is_told_too(search, capfd):
    failures = search.run("valley_with_holes", enqueue=STARTS, sampler=FAST)
    assert failures == [
        "1 of 4 trials failed; the same command goes on",
        "  trial 2: seed 0: failed: killed by SIGKILL (kill -9, or out of memory in a container)",
    ]
    trials = search.trials()
    assert [trial.state.name for trial in trials] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE"]
    assert trials[1].user_attrs[REASON] == "seed 0: diverged: NaN loss at step 3"
    assert [trial.user_attrs.get(DIED) for trial in trials] == [None, False, True, None]
    assert "trial 1  learning_rate=0.001  t_max=8  failed: seed 0: diverged" in capfd.readouterr().out
    # NaN is an answer; what died is tried again.
    assert search.run("valley_with_holes", enqueue=STARTS, sampler=FAST) == []
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE", "FAIL", "FAIL", "COMPLETE", "COMPLETE"]
    assert search.trials()[4].params == STARTS[2]
    read = read_sweep(search.folder()).trials
    assert [(trial.number, trial.state) for trial in read] == [
        (0, "complete"), (1, "failed"), (3, "complete"), (4, "complete"),
    ]  # fmt: skip
    assert [trial.enqueued for trial in read] == [True] * 4


def test_a_diverged_run_alone_is_no_failure(search):
    assert search.run("valley_with_holes", trials=2, enqueue=STARTS[1:2], sampler=FAST) == []
    assert [trial.state.name for trial in search.trials()] == ["FAIL", "COMPLETE"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"space": {T_MAX: {"int": [1, 20]}}}, r"space: .*t_max: int 1 to 40 \(log\) then, int 1 to 20 now"),
        ({"space": {LEARNING_RATE: {"float": [1.00001e-5, 0.1], "log": True}}}, r"float 1e-05 to .* 1.00001e-05 to"),
        ({"objectives": ["val_loss", "ms_per_step"]}, r"objectives: \['val_loss'\] then, .*'ms_per_step'\] now"),
        ({"sampler": {"name": "gp", "seed": 3}}, r"sampler: name: qmc then, gp now"),
        ({"seeds": [0, 1]}, r"seeds: \[0\] then, \[0, 1\] now"),
        ({"overrides": ["residual=mhc", "data=synthetic", "tracking=none"]}, "overrides: .*max_steps=12.* then"),
    ],
)
def test_another_sweep_in_the_same_study_is_refused_with_the_difference(search, changes, words):
    search.run(trials=1, sampler=FAST)
    before = search.folder().study_file.read_text()
    with pytest.raises(LabError, match=words) as error:
        search.run(trials=1, **{"sampler": FAST, **changes})
    assert "--study NAME" in str(error.value)
    assert "\n" not in str(error.value)
    assert search.folder().study_file.read_text() == before


def later(spec: SweepSpec) -> Code:
    """The code of a sweep in which one definition has changed."""
    return {**sweep_code(spec), "models.stack.ResidualStack": "00000000"}


def test_trials_of_other_code_ask_for_a_choice(search, monkeypatch):
    search.run(trials=1, sampler=FAST)
    monkeypatch.setattr("mhc_lab.study.definition.code", later)
    with pytest.raises(LabError, match=r"other code than now \(models\.stack\.ResidualStack\): --keep .*--study NAME"):
        search.run(trials=2, sampler=FAST, other_code="ask")
    assert search.run(trials=2, sampler=FAST) == []
    assert _places(search, TrialState.COMPLETE) == [0, 1]


def test_runs_of_other_code_are_kept_or_run_again_as_the_user_says(search):
    search.run(trials=2, sampler=FAST)
    runs = [run for trial in search.trials() for run in search.runs(trial)]
    record = runs[0].record()
    write_json(runs[0].record_file, record | {"code_fingerprint": "older", "metrics": {"val_loss": 0.5}})
    search.run(trials=2, sampler=FAST, study="kept")
    assert [fake_runs.begun(run) for run in runs] == [1, 1]
    assert search.trials("kept")[0].value == 0.5
    # A point that the sampler proposes is not known before: its trial fails, and nothing is lost.
    failures = search.run(trials=2, sampler=FAST, study="anew", other_code="ask")
    assert failures[1] == f"  trial 0: {runs[0].path} has a result of other code: {CHOICE}"
    assert (runs[0].record() or {})["code_fingerprint"] == "older"
    search.run(trials=2, sampler=FAST, study="anew", other_code="rerun")
    assert [fake_runs.begun(run) for run in runs] == [2, 1]
    assert [trial.state.name for trial in search.trials("anew")] == ["FAIL", "COMPLETE", "COMPLETE"]
    assert search.trials("anew")[2].value == search.trials()[0].value


def test_starting_points_with_results_of_other_code_are_asked_about_first(search):
    search.run(trials=2, enqueue=STARTS, sampler=FAST)
    (run,) = search.runs(search.trials()[1])
    write_json(run.record_file, (run.record() or {}) | {"code_fingerprint": "older"})
    with pytest.raises(LabError, match=r"^1 of the runs to come have a result of other code than now: --rerun"):
        search.run(trials=2, enqueue=STARTS, sampler=FAST, study="anew", other_code="ask")
    assert search.trials("anew") == []
    assert search.run(trials=2, enqueue=STARTS, sampler=FAST, study="anew", other_code="rerun") == []
    assert fake_runs.begun(run) == 2


def test_a_place_that_could_not_be_run_is_run_once_it_can(search):
    """Something is not there; then it is."""
    failures = search.run("not_there", trials=2, sampler=FAST)
    assert failures[0] == "2 of 2 trials failed; the same command goes on"
    assert "trial 0: seed 0: failed: the disk is not there: mount it" in failures[1]
    assert search.run(trials=2, sampler=FAST) == []
    assert _places(search, TrialState.COMPLETE) == [0, 1]
    assert [t.params for t in search.trials()][2:] == [t.params for t in search.trials()][:2]


def test_a_budget_may_shrink_while_trials_wait(search):
    search.run(trials=1, sampler=FAST)
    enqueue(optuna_study(search), search.spec(trials=4, sampler=FAST))
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE", *["WAITING"] * 3]
    assert search.run(trials=2, sampler=FAST) == []
    assert _places(search, TrialState.COMPLETE) == [0, 1]
    assert TrialState.WAITING not in {trial.state for trial in search.trials()}
    assert search.run(trials=3, sampler=FAST) == []
    assert _places(search, TrialState.COMPLETE) == [0, 1, 2]


def test_starting_points_may_be_added(search, capfd):
    assert search.run(trials=2, enqueue=STARTS[:1], sampler=FAST) == []
    assert search.run(trials=2, enqueue=STARTS[:3], sampler=FAST) == []
    assert "2 starting points lie beyond the budget: give more --trials" in capfd.readouterr().out
    assert search.run(trials=4, enqueue=STARTS[:3], sampler=FAST) == []
    points = _points(search)
    assert [points[0], *points[2:]] == STARTS[:3]
    assert [trial.enqueued for trial in read_sweep(search.folder()).trials] == [True, False, True, True]


def test_a_grid_of_other_points_is_another_sweep(search):
    rates = {LEARNING_RATE: {"float": [1e-4, 1e-2], "log": True, "points": 3}}
    assert search.run(space=rates, sampler="grid", trials=3) == []
    rates[LEARNING_RATE]["points"] = 2
    with pytest.raises(LabError, match=r"\(log\), 3 points then, .*\(log\), 2 points now"):
        search.run(space=rates, sampler="grid", trials=2)


def test_a_configuration_file_that_has_changed_is_another_sweep(search, tmp_path, monkeypatch):
    """Also to a worker that sees other files than the command that began it."""
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / "conf" / "model" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("dim: 16\nheads: 2\n")
    overrides = [*search.content["overrides"], "model=mine"]
    search.run(trials=1, sampler=FAST, overrides=overrides)
    enqueue(optuna_study(search), search.spec(trials=2, sampler=FAST, overrides=overrides))
    mine.write_text("dim: 32\nheads: 2\n")
    with pytest.raises(LabError, match=r"configuration: [0-9a-f]{12} then, [0-9a-f]{12} now"):
        search.run(trials=2, sampler=FAST, overrides=overrides)
    with pytest.raises(LabError, match=r"configuration: .*; give this worker the code, corpus and configuration"):
        work(search.results, "search", target="fake_runs:valley")
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE", "WAITING"]


def test_a_worker_of_other_code_takes_no_trial(search, monkeypatch):
    search.run(trials=1, sampler=FAST, other_code="ask")
    monkeypatch.setattr("mhc_lab.study.definition.code", later)
    with pytest.raises(LabError, match=r"made with other code than now \(models\.stack\.ResidualStack\): give this"):
        work(search.results, "search", target="fake_runs:valley")


def test_a_trial_that_was_given_to_another_worker_ends_its_run(search):
    """This machine slept for longer than the grace; the run would wait for its answer for ever."""

    def slept(trial: optuna.trial.Trial, *_: object) -> None:
        trial.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        raise UpdateFinishedTrialError

    search.patch.setattr(optuna.trial.Trial, "report", slept)
    pruner = {"name": "hyperband", "min_steps": 2, "factor": 3}
    failures = search.run("judged", trials=1, enqueue=STARTS[:1], pruner=pruner)
    assert failures == ["0 of 1 trials failed; the same command goes on", "  1 trials have no result"]
    (run,) = [RunFolder(path) for path in (search.results / "runs").iterdir() if path.is_dir()]
    with run.lock():
        assert run.record() is None


def test_a_trial_that_another_worker_was_given_may_end_late(search):
    """What its run has finished stands, and this worker goes on."""
    values = SweepObjective._values

    def late(objective: SweepObjective, trial: optuna.trial.Trial, point: dict) -> list[float]:
        found = values(objective, trial, point)
        if trial.number == 0:
            trial.study._storage.set_trial_state_values(trial._trial_id, TrialState.FAIL)
        return found

    search.patch.setattr(SweepObjective, "_values", late)
    failures = search.run(trials=2, sampler=FAST)
    assert failures == ["0 of 2 trials failed; the same command goes on", "  1 trials have no result"]
    assert [trial.state.name for trial in search.trials()] == ["FAIL", "COMPLETE"]


def test_a_bug_in_the_middle_of_a_trial_is_not_taken_for_sleep(search):
    def broken(*_: object) -> float:
        raise ValueError("not what it should be")

    search.patch.setattr(SweepObjective, "_values", broken)
    with pytest.raises(ValueError, match="not what it should be"):
        search.run(trials=1, sampler=FAST)


def test_a_grid_takes_every_point_once_and_asks_for_no_more_than_is_wanted(search):
    space = {
        "residual": {"choices": ["identity", "mhc"]},
        T_MAX: {"choices": [5, 20], "when": {"residual": ["mhc"]}},
        LEARNING_RATE: {"float": [1e-4, 1e-2], "log": True, "points": 2},
    }
    overrides = [text for text in search.content["overrides"] if text != "residual=mhc"]
    found = {"space": space, "sampler": "grid", "overrides": overrides}
    assert search.run(**found, trials=6) == []
    points = [{**point, LEARNING_RATE: round(point[LEARNING_RATE], 6)} for point in _points(search)]
    expected = [{"residual": "identity", LEARNING_RATE: rate} for rate in (1e-4, 1e-2)]
    expected += [{"residual": "mhc", T_MAX: t, LEARNING_RATE: rate} for t in (5, 20) for rate in (1e-4, 1e-2)]
    assert Counter(map(_text, points)) == Counter(map(_text, expected))
    variants = {run.config().residual.variant for trial in search.trials() for run in search.runs(trial)}
    assert variants == {"identity", "mhc"}


def test_conditional_parameters_are_sampled_only_where_they_are_wanted(search):
    space = {
        "residual": {"choices": ["identity", "mhc"]},
        T_MAX: {"int": [1, 40], "log": True, "when": {"residual": ["mhc"]}},
        LEARNING_RATE: {"float": [1e-4, 1e-2], "log": True},
    }
    overrides = [text for text in search.content["overrides"] if text != "residual=mhc"]
    assert search.run(trials=6, space=space, overrides=overrides) == []
    points = _points(search)
    assert {point["residual"] for point in points} == {"identity", "mhc"}
    assert all((T_MAX in point) == (point["residual"] == "mhc") for point in points)


def test_the_starting_points_come_first_and_the_rest_of_them_is_sampled(search):
    assert search.run(trials=4, enqueue=[STARTS[0], {T_MAX: 33}]) == []
    points = _points(search)
    assert points[0] == STARTS[0]
    assert points[1][T_MAX] == 33
    assert all(point not in STARTS for point in points[1:])


def test_two_objectives_are_told_together(search):
    assert search.run(trials=3, objectives=["val_loss", "ms_per_step"]) == []
    for trial in search.trials():
        assert trial.values[1] == trial.params[T_MAX]
        assert trial.values[0] == fake_runs.valley_metrics(search.runs(trial)[0])["val_loss"]
    sweep = read_sweep(search.folder())
    assert [objective.metric for objective in sweep.objectives] == ["val_loss", "ms_per_step"]
    assert all(len(trial.values) == 2 for trial in sweep.trials)


def test_a_trial_is_the_mean_over_its_seeds(search):
    assert search.run(trials=2, seeds=[0, 4], sampler=FAST) == []
    for trial in search.trials():
        runs = search.runs(trial)
        assert [run.config().seed for run in runs] == [0, 4]
        assert trial.value == pytest.approx(fake_runs.valley_metrics(runs[0])["val_loss"] + 0.002)


def test_wilcoxon_prunes_a_worse_point_before_its_last_seed(search):
    points = [{LEARNING_RATE: rate, T_MAX: 5} for rate in (1e-3, 1e-5, 1e-1)]
    pruner = {"name": "wilcoxon", "p_threshold": 0.2, "n_startup_steps": 2}
    assert search.run(trials=3, enqueue=points, seeds=list(range(8)), pruner=pruner) == []
    best, *worse = search.trials()
    assert best.state == TrialState.COMPLETE
    for trial in worse:
        assert trial.state == TrialState.PRUNED
        begun = [fake_runs.begun(run) for run in search.runs(trial)]
        assert 2 <= sum(begun) < 6
        assert begun == sorted(begun, reverse=True)


def test_hyperband_ends_the_runs_that_are_behind(search):
    """Good ones first: what comes after is behind at the first question."""
    rates = [1e-3, 1.1e-3, *([1e-5, 1e-1] * 3)]
    points = [{LEARNING_RATE: rate, T_MAX: t_max} for t_max, rate in enumerate(rates, start=1)]
    pruner = {"name": "hyperband", "min_steps": 2, "factor": 3}
    assert search.run("judged", trials=len(points), enqueue=points, pruner=pruner) == []
    trials = search.trials()
    counts = Counter(trial.state for trial in trials)
    assert counts.keys() == {TrialState.COMPLETE, TrialState.PRUNED}
    assert counts[TrialState.PRUNED] >= 4
    assert trials[0].state == TrialState.COMPLETE
    for trial in trials:
        (run,) = search.runs(trial)
        assert fake_runs.begun(run) == 1
        assert run.question() is None
        if trial.state == TrialState.COMPLETE:
            assert list(trial.intermediate_values) == [2, 4, 6, 8, 10, 12]
        else:
            assert run.record()["status"] == "pruned"
            assert trial.params[LEARNING_RATE] in (1e-5, 1e-1)
            assert max(trial.intermediate_values) < 12
    states = Counter(trial.state for trial in read_sweep(search.folder()).trials)
    assert states == {"complete": counts[TrialState.COMPLETE], "pruned": counts[TrialState.PRUNED]}


def test_a_space_that_lacks_what_was_tried_is_damaged(search):
    search.run(trials=1, sampler=FAST, space={"residual.t_max": {"choices": [1, 2]}})
    file = search.folder().study_file
    content = json.loads(file.read_text())
    content["spec"]["space"]["residual.t_max"]["choices"] = [3, 4]
    file.write_text(json.dumps(content))
    with pytest.raises(LabError, match=r"is damaged \(its space lacks what trial 0 had for residual.t_max\)"):
        read_sweep(search.folder())


def test_what_was_done_can_be_read_again(search):
    search.run("valley_with_holes", trials=5, enqueue=STARTS, sampler=FAST, seeds=[0])
    sweep = read_sweep(search.folder())
    assert (sweep.name, sweep.title, sweep.budget, sweep.seeds) == ("search", "A search", 5, (0,))
    assert [trial.state for trial in sweep.trials] == ["complete", "failed", "failed", "complete", "complete"]
    assert [trial.enqueued for trial in sweep.trials] == [True] * 4 + [False]
    assert sweep.trials[0].params == STARTS[0]
    assert sweep.trials[0].by_seed[0]["val_loss"] == sweep.trials[0].values[0] == fake_runs.LOSS
    assert sweep.trials[1].reason == "seed 0: diverged: NaN loss at step 3"
    assert sweep.state_words() == "3 complete, 2 failed"


def test_a_place_that_was_queued_twice_is_filled_once(search, monkeypatch):
    """As a server may do that is restarted while a trial is queued."""

    def twice(study, spec):
        enqueue(study, spec)
        first = study.get_trials()[0]
        study.enqueue_trial({}, user_attrs=dict(first.user_attrs))

    monkeypatch.setattr("mhc_lab.study.sweep.enqueue", twice)
    assert search.run(trials=2, sampler=FAST) == []
    assert _places(search, TrialState.COMPLETE) == [0, 1]
    assert [trial.state.name for trial in search.trials()] == ["COMPLETE", "COMPLETE", "FAIL"]
    assert RUNS not in search.trials()[2].user_attrs
    assert [trial.number for trial in read_sweep(search.folder()).trials] == [0, 1]


def test_the_best_point_for_each_choice(search):
    space = {
        "residual.convention": {"choices": ["eq9", "v4"]},
        LEARNING_RATE: {"choices": [0.0001, 0.001, 0.01]},
    }
    starts = [{"residual.convention": c, LEARNING_RATE: r} for c in ("v4", "eq9") for r in (0.0001, 0.001, 0.01)]
    found = {"space": space, "enqueue": starts[:4], "by": "residual.convention", "sampler": FAST}
    assert search.run(**found) == []
    longer = search.spec(trials=5, **found)
    search.folder().write_sweep(longer, storage=DEFAULT_STORAGE, command="go", other_code="ask")
    with pytest.raises(LabError, match="--tuned search: 4 of 5 trials have a result; let it end: go"):
        best_by(search.folder())
    assert search.run(**found) == []
    found_best = best_by(search.folder())
    assert (found_best.sweep, found_best.by) == ("search", "residual.convention")
    assert found_best.best == {"v4": {LEARNING_RATE: 0.001}, "eq9": {LEARNING_RATE: 0.0001}}


def test_a_sweep_without_by_tunes_nothing_apart(search):
    search.run(trials=1, sampler=FAST)
    with pytest.raises(LabError, match="give its file by: residual"):
        best_by(search.folder())


def optuna_study(search) -> optuna.Study:
    return optuna.load_study(study_name="search", storage=resolve(DEFAULT_STORAGE, search.results))


def _text(point: dict) -> str:
    return json.dumps(point, sort_keys=True)


COMMAND = """
import pathlib, sys
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.holding import StudyInterrupted, alone, concluded
from mhc_lab.study.launchers.local import slots
from mhc_lab.study.signals import interruptible
from mhc_lab.study.sweep import run_trials
from mhc_lab.study.sweep_file import load_sweep
import fake_runs

spec = load_sweep(sys.argv[1], trials=24, overrides=["launcher.workers=2"])
folder = StudyFolder(pathlib.Path(sys.argv[2]), "search")
try:
    with interruptible(), alone(folder), concluded(folder, spec.base.tracking):
        run_trials(spec, folder, slots(spec.base), other_code="keep", target="fake_runs:valley_slowly")
except StudyInterrupted as told:
    sys.exit(told.exit_code)
"""
