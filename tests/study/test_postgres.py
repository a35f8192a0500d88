"""Studies on a real PostgreSQL server, which is restarted under them."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import fake_runs
import pytest
from optuna.storages import RetryHeartbeatStaleTrialCallback
from optuna.trial import FrozenTrial, TrialState
from postgres import Server

from mhc_lab.errors import LabError
from mhc_lab.study.outcome import read_sweep
from mhc_lab.study.storage import NothingWaits, StudyStorage, resolve
from mhc_lab.study.trial import PLACE, REASON

pytestmark = [pytest.mark.survival, pytest.mark.filterwarnings("ignore:Retry")]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    started = Server()
    try:
        yield started
    finally:
        started.remove()


@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_forty_trials_outlive_a_killed_worker_and_a_restarted_server(search, server, mode):
    """The issue's words: 4 workers, 40 short trials, none lost and none counted twice."""
    url = server.database(mode)

    def disturb() -> FrozenTrial:
        _until(lambda: _ended(search) >= 6)
        victim = _kill_a_worker(search, url)
        _until(lambda: _ended(search) >= 16)
        server.restart(mode)
        return victim

    with ThreadPoolExecutor(1) as beside:
        disturbance = beside.submit(disturb)
        failures = search.run("valley_slowly", trials=40, workers=4, storage=url)
        victim = disturbance.result(60)
    assert failures == []
    trials = search.trials(storage=url)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs[PLACE] for trial in done) == list(range(40))
    assert {trial.state for trial in trials} == {TrialState.COMPLETE, TrialState.FAIL}
    cut_off = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert all(REASON not in trial.user_attrs for trial in cut_off)
    assert victim.number in [trial.number for trial in cut_off]
    again = next(trial for trial in done if trial.user_attrs[PLACE] == victim.user_attrs[PLACE])
    assert victim.number in RetryHeartbeatStaleTrialCallback.retry_history(again)
    assert again.params == victim.params
    for trial in done:
        (run,) = search.runs(trial)
        assert fake_runs.ended(run) == 1
        assert trial.value == fake_runs.valley_metrics(run)["val_loss"]
    assert again.user_attrs["worker"] != victim.user_attrs["worker"]
    assert search.run("valley_slowly", trials=40, workers=4) == []  # study.json knows the server
    assert len(search.trials(storage=url)) == len(trials)


def test_a_grid_on_a_server_runs_each_cell_once(lab, server):
    url = server.database("grid")
    assert lab.ablate(seeds=[0, 1], workers=2, storage=url) == []
    runs = lab.runs(lab.grid([0, 1]))
    assert {fake_runs.begun(run) for run in runs.values()} == {1}
    trials = lab.trials(url)
    assert Counter(trial.user_attrs["run_id"] for trial in trials) == {run.run_id: 1 for run in runs.values()}
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert lab.folder().content()["storage"] == url


def test_a_password_reaches_the_workers_and_no_file(search, server, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    url = server.database("secrets")
    server.say("CREATE ROLE ada LOGIN PASSWORD 'abracadabra'")
    server.say("ALTER DATABASE secrets OWNER TO ada")
    url = url.replace("lab@", "ada:abracadabra@")
    assert search.run(trials=1, storage=url) == []
    assert [trial.state for trial in search.trials(storage=url)] == [TrialState.COMPLETE]
    assert search.folder().content()["storage"].startswith("postgresql://ada:***@127.0.0.1")
    files = [file for file in search.results.rglob("*") if file.is_file()]
    assert not [file for file in files if b"abracadabra" in file.read_bytes()]
    with pytest.raises(LabError, match="give the whole URL with --storage"):
        search.run(trials=2)
    monkeypatch.setenv("PGPASSWORD", "abracadabra")
    assert [trial.state for trial in read_sweep(search.folder()).trials] == ["complete"]
    monkeypatch.delenv("PGPASSWORD")
    with pytest.raises(LabError, match="password authentication failed") as error:
        search.run(trials=2, storage=url.replace("abracadabra", "open sesame"))
    assert "sesame" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_second_machine_joins_with_the_url_alone(search, server, tmp_path):
    """Another results folder, as on another machine: both do a part, both can report the whole."""
    url = server.database("machines")
    elsewhere = dataclasses.replace(search, file=tmp_path / "elsewhere.yaml", results=tmp_path / "elsewhere")
    with ThreadPoolExecutor(2) as machines:
        given = {"trials": 16, "storage": url, "launched": True}
        ends = [machines.submit(machine.run, "valley_slowly", **given) for machine in (search, elsewhere)]
        assert [end.result(120) for end in ends] == [[], []]
    done = [trial for trial in search.trials(storage=url) if trial.state == TrialState.COMPLETE]
    assert sorted(trial.user_attrs[PLACE] for trial in done) == list(range(16))
    parts = [sum(run.record() is not None for t in done for run in here.runs(t)) for here in (search, elsewhere)]
    assert sum(parts) == 16
    assert min(parts) > 0
    for here in (search, elsewhere):
        found = read_sweep(here.folder(), url).trials
        assert [trial.state for trial in found] == ["complete"] * 16
        assert all(trial.by_seed[0]["val_loss"] == trial.values[0] for trial in found)


def test_of_two_workers_at_the_last_trial_one_gets_nothing(tmp_path, server):
    """Where Optuna would make up another trial, beyond the budget."""
    url = resolve(server.database("last"), tmp_path)
    storage = StudyStorage(url, "study", tmp_path, interval=1, grace=3)
    storage.create().enqueue_trial({})
    workers = [storage.open(), StudyStorage(url, "study", tmp_path, interval=1, grace=3).open()]
    workers[0].optimize(lambda _: 1.0, n_trials=1)
    with pytest.raises(NothingWaits):
        workers[1].optimize(lambda _: 1.0, n_trials=1)
    assert [trial.state for trial in workers[1].get_trials()] == [TrialState.COMPLETE]


def test_a_worker_waits_for_a_server_that_is_restarted(tmp_path, server):
    url = resolve(server.database("patience"), tmp_path)
    storage = StudyStorage(url, "study", tmp_path, interval=1, grace=30)
    storage.create().enqueue_trial({})

    def objective(trial):
        server.restart("immediate")
        x = trial.suggest_float("x", 0.0, 1.0)
        server.restart("fast")
        trial.report(x, 1)
        trial.should_prune()
        return x

    storage.open().optimize(objective, n_trials=1)
    assert [trial.state for trial in storage.open().get_trials()] == [TrialState.COMPLETE]


def test_a_server_that_is_not_there_is_one_line_of_the_command(tmp_path):
    pytest.importorskip("psycopg", reason="the postgres extra is not installed")
    began = time.monotonic()
    code = "import sys; from mhc_lab.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "sweep", "smoke", "--storage", "postgresql://127.0.0.1:1/x"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path / "results")], capture_output=True, text=True, timeout=60, cwd=tmp_path
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "--storage postgresql+psycopg://127.0.0.1:1/x: cannot be reached" in done.stderr
    assert time.monotonic() - began < 30  # of which some seconds are the start of the command


def _kill_a_worker(search, url: str) -> FrozenTrial:
    """Kill a worker in the middle of a trial, which is returned."""
    while True:
        victim = next(
            (t for t in search.trials(storage=url) if t.state == TrialState.RUNNING and "runs" in t.user_attrs), None
        )
        if victim is None:
            continue
        pid = int(victim.user_attrs["worker"].split()[-2])
        os.kill(pid, signal.SIGSTOP)  # it can no longer end the trial
        if search.trials(storage=url)[victim.number].state == TrialState.RUNNING:
            os.kill(pid, signal.SIGKILL)
            return victim
        os.kill(pid, signal.SIGCONT)


def _ended(search) -> int:
    return len(list((search.results / "runs").glob("*/ended")))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
