from __future__ import annotations

import dataclasses
import socket
import time

import optuna
import pytest
from optuna.trial import TrialState

from mhc_lab.errors import LabError
from mhc_lab.study.engine import enqueue
from mhc_lab.study.storage import (
    DEFAULT_STORAGE,
    StudyStorage,
    absolute,
    process_name,
    resolve,
    trials,
    without_password,
)

pytestmark = pytest.mark.filterwarnings("ignore:Heartbeat of storage is supposed to be used with")


@pytest.fixture
def storage(tmp_path):
    url = resolve(DEFAULT_STORAGE, tmp_path)
    return StudyStorage(url, "study", tmp_path, interval=1, grace=2)


def _take(study: optuna.Study, worker: str) -> optuna.Trial:
    trial = study.ask()
    trial.set_user_attr("worker", worker)
    return trial


def _queue(study: optuna.Study) -> None:
    study.enqueue_trial({}, user_attrs={"row": "mhc", "seed": 0, "run_id": "mhc-0"})


def test_a_worker_of_another_machine_is_missed_after_the_grace(storage):
    study = storage.create()
    _queue(study)
    trial = _take(study, "elsewhere 1 2")
    storage._storage.record_heartbeat(trial._trial_id)
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.RUNNING]
    time.sleep(3.2)  # heartbeats count whole seconds
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.FAIL, TrialState.WAITING]
    assert trials(study)[1].user_attrs["run_id"] == "mhc-0"


def test_a_worker_of_this_machine_is_missed_at_once(storage):
    study = storage.create()
    _queue(study)
    host, pid, started = process_name().rsplit(" ", 2)
    _take(study, f"{host} {pid} {started}")
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.RUNNING]
    study._storage.set_trial_user_attr(trials(study)[0]._trial_id, "worker", f"{host} {pid} 1")
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.FAIL, TrialState.WAITING]


def test_a_pid_of_another_container_says_nothing(storage):
    """Two that share a host's name have processes of their own under the same numbers."""
    study = storage.create()
    _queue(study)
    host, pid, _ = process_name().rsplit(" ", 2)
    _take(study, f"{host}[4026999999] {pid} 1")
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.RUNNING]


def test_a_trial_that_no_worker_signed_is_requeued_after_the_grace(storage):
    study = storage.create()
    _queue(study)
    study.ask()
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.RUNNING]
    time.sleep(2.1)
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.FAIL, TrialState.WAITING]


def test_a_trial_whose_worker_dies_a_third_time_is_given_up(tmp_path):
    given_up = []
    url = resolve(DEFAULT_STORAGE, tmp_path)
    storage = StudyStorage(url, "study", tmp_path, interval=1, grace=2, exhausted=lambda _, t: given_up.append(t))
    study = storage.create()
    _queue(study)
    host = process_name().rsplit(" ", 2)[0]
    for _ in range(3):
        assert given_up == []
        _take(study, f"{host} {2**22 + 1} 1")  # beyond the largest pid
        storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.FAIL] * 3
    assert [t.user_attrs["run_id"] for t in given_up] == ["mhc-0"]


def test_enqueue_queues_each_run_once_and_closes_what_is_not_wanted(storage, lab):
    study = storage.create()
    cells = lab.grid([0, 1]).cells
    enqueue(storage, study, cells)
    enqueue(storage, study, cells)
    assert len(trials(study, TrialState.WAITING)) == len(cells) == 8
    enqueue(storage, study, lab.grid([1, 2]).cells)
    assert {t.user_attrs["seed"] for t in trials(study, TrialState.WAITING)} == {1, 2}
    assert len(trials(study)) == 12


def test_passwords_stay_out_of_the_study(tmp_path, monkeypatch):
    monkeypatch.delenv("PGPASSWORD", raising=False)
    kept = without_password("postgresql://ada:secret@host/lab")
    assert kept == "postgresql://ada:***@host/lab"
    with pytest.raises(LabError, match="give the whole URL with --storage"):
        resolve(kept, tmp_path)
    monkeypatch.setenv("PGPASSWORD", "secret")
    assert resolve(kept, tmp_path) == "postgresql+psycopg://ada@host/lab"
    with pytest.raises(LabError, match="; give the whole URL with --storage"):
        resolve(kept.replace("postgresql", "mysql"), tmp_path)
    assert without_password(DEFAULT_STORAGE) == DEFAULT_STORAGE
    with pytest.raises(LabError, match="not a database URL"):
        without_password("studies.db")
    with pytest.raises(LabError, match="not a database URL"):
        without_password("postgresql://host:port/lab")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("sqlite:////nowhere/at/all/studies.db", "unable to open database file"),
        ("nodb://host/lab", "nodb"),
    ],
)
def test_a_storage_that_cannot_be_is_one_line(tmp_path, url, words):
    with pytest.raises(LabError, match=words) as error:
        StudyStorage(url, "study", tmp_path, interval=1, grace=2)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("url", ["sqlite:///{}/studies.db", "nodb://host/lab"])
def test_results_of_another_user_are_one_line(tmp_path, monkeypatch, url):
    monkeypatch.setattr("mhc_lab.study.storage.os.access", lambda *_: False)
    with pytest.raises(LabError, match="runs: cannot be written: Permission denied; choose another --results"):
        StudyStorage(url.format(tmp_path), "study", tmp_path, interval=1, grace=2)


def test_a_requeued_trial_does_not_carry_its_dead_worker(storage):
    study = storage.create()
    _queue(study)
    _take(study, f"{process_name().split()[0]} 4194305 1")
    study._storage.set_trial_user_attr(trials(study)[0]._trial_id, "stopped", True)
    storage.reap(study)
    assert "stopped" not in trials(study)[1].user_attrs
    study.ask()  # taken, not yet signed
    storage.reap(study)
    assert [t.state for t in trials(study)] == [TrialState.FAIL, TrialState.RUNNING]


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_workers_cannot_share_a_memory(url):
    with pytest.raises(LabError, match="need a file"):
        absolute(url)
    assert absolute("sqlite:///studies.db").startswith("sqlite:////")


def test_a_grid_in_one_database_belongs_to_one_results_folder(lab, tmp_path):
    url = f"sqlite:///{tmp_path}/shared.db"
    assert lab.ablate(seeds=[0], storage=url) == []
    other = dataclasses.replace(lab, results=tmp_path / "elsewhere")
    with pytest.raises(LabError, match="belongs to another results folder: use that --results, another --study"):
        other.ablate(seeds=[0], storage=url)
    assert not (other.results / "grid").exists()
    # A folder that was moved is the same one.
    lab.results.rename(tmp_path / "moved")
    assert dataclasses.replace(lab, results=tmp_path / "moved").ablate(seeds=[0, 1], storage=url) == []


def test_machines_of_one_name_do_not_judge_each_others_workers(storage):
    study = storage.create()
    _take(study, f"{socket.gethostname()} 4194305 1")
    storage.reap(study)
    assert [trial.state for trial in trials(study)] == [TrialState.RUNNING]
