from __future__ import annotations

import logging
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.config.schema import TrackingConfig
from mhc_lab.errors import LabError
from mhc_lab.run_folder import read_json
from mhc_lab.tracking.mlflow import end_study, push, start_run, start_study
from mhc_lab.tracking.store import default_uri

MakeRun = Callable[..., Any]


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_a_run_is_mirrored_whole(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=mhc", "residual.t_max=7", "seed=3")
    start_run(results, folder, folder.config().tracking)
    folder.log(1, 2)
    assert push(folder)
    store = store_at(default_uri(results))
    run = store.child(folder)
    assert run.info.status == "RUNNING"
    assert run.data.params["residual.t_max"] == "7"
    assert run.data.params["seed"] == "3"
    assert run.data.tags["variant"] == "mhc"
    assert "mlflow.parentRunId" not in run.data.tags

    folder.log(3, 4)
    folder.gains_file.write_text('{"step": 4}\n')
    folder.end()
    assert push(folder)
    run = store.child(folder)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == f"{folder.run_id} seed 3"
    assert store.history(run, "train_loss")[:4] == [(1, 2.99), (2, 2.98), (3, 2.97), (4, 2.96)]
    assert store.history(run, "val_loss") == [(30, 2.25)]
    assert run.data.metrics["parameters"] == 1000
    assert "ds_error" not in run.data.metrics  # not measured
    assert run.data.tags["corpus_fingerprint"] == "c0ffee"
    assert run.data.tags["code_fingerprint"] == "badc0de"
    assert store.artifacts(run) == {"config.yaml", "gains.jsonl", "record.json"}
    assert Path(run.info.artifact_uri.removeprefix("file://")).is_relative_to(results.resolve() / "runs")


@pytest.mark.parametrize(
    ("artifacts", "files"),
    [("none", set()), ("all", {"config.yaml", "gains.jsonl", "record.json", "checkpoint.pt"})],
)
def test_as_many_files_are_attached_as_asked(
    results: Path, make_run: MakeRun, store_at: Any, artifacts: str, files: set[str]
) -> None:
    folder = make_run("residual=identity", f"tracking.artifacts={artifacts}")
    tracking = folder.config().tracking
    start_study(results, "table1", tracking, [folder], {})
    folder.log(1, 2)
    folder.gains_file.write_text('{"step": 2}\n')
    folder.checkpoint_file.write_bytes(b"weights")
    folder.end()
    assert push(folder)
    table = results / "table.md"
    table.write_text("| row |\n")
    end_study(results, "table1", tracking, "FINISHED", [table])
    store = store_at(default_uri(results))
    assert store.artifacts(store.child(folder)) == files
    assert store.artifacts(store.parent()) == ({"table.md"} if files else set())


def test_pushing_again_sends_nothing_twice(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 3)
    folder.end()
    assert push(folder)
    state = folder.mlflow_file.read_text()
    assert push(folder)
    assert folder.mlflow_file.read_text() == state
    store = store_at(default_uri(results))
    assert len(store.history(store.child(folder), "grad_norm")) == 3


def test_a_folder_that_forgot_finds_its_run_again(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    start_run(results, folder, folder.config().tracking)
    before = folder.mlflow_file.read_text()
    folder.log(1, 3)
    assert push(folder)
    folder.mlflow_file.write_text(before)
    folder.log(4, 4)
    assert push(folder)
    store = store_at(default_uri(results))
    assert len(store.history(store.child(folder), "grad_norm")) == 4


def test_a_torn_last_line_waits(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 2)
    with folder.metrics_file.open("a") as out:
        out.write('{"step": 99, "train_l')
    assert push(folder)
    store = store_at(default_uri(results))
    assert len(store.history(store.child(folder), "train_loss")) == 2
    with folder.metrics_file.open("a") as out:
        out.write('oss": 0.5}\n')
    assert push(folder)
    assert store.history(store.child(folder), "train_loss")[-1] == (99, 0.5)


def test_more_metrics_than_one_batch_takes(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 1100)
    assert push(folder)
    store = store_at(default_uri(results))
    assert [step for step, _ in store.history(store.child(folder), "grad_norm")] == list(range(1, 1101))


@pytest.mark.parametrize(
    ("status", "reason", "shown"),
    [
        ("diverged", "loss is nan at step 7", "FINISHED"),
        ("failed", "out of memory", "FAILED"),
        ("killed", "interrupted", "KILLED"),
    ],
)
def test_statuses(results: Path, make_run: MakeRun, store_at: Any, status: str, reason: str, shown: str) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 1)
    with folder.metrics_file.open("a") as out:
        out.write('{"step": 2, "train_loss": NaN, "grad_norm": Infinity}\n')
    folder.end(status, reason)
    assert push(folder)
    run = store_at(default_uri(results)).child(folder)
    assert run.info.status == shown
    assert run.data.tags["status"] == status
    assert run.data.tags["reason"] == reason
    assert run.data.tags.get("diverged") == ("true" if status == "diverged" else "false")


def test_another_attempt_is_another_run(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    start_study(results, "grid", folder.config().tracking, [folder], {folder.run_id: {"row": "base"}})
    folder.log(1, 5)
    assert push(folder)
    folder.clear()
    folder.log(1, 2)
    folder.end()
    assert push(folder)
    store = store_at(default_uri(results))
    first, second = store.children(folder)
    if "superseded" in second.data.tags:
        first, second = second, first
    assert (first.info.status, first.data.tags["superseded"]) == ("KILLED", "true")
    assert second.info.status == "FINISHED"
    assert second.data.tags["row"] == "base"
    assert second.data.tags["mlflow.parentRunId"] == first.data.tags["mlflow.parentRunId"]
    assert len(store.history(second, "grad_norm")) == 2


def test_a_study_is_a_parent_with_children(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folders = [make_run("residual=identity"), make_run("residual=hc")]
    tracking = folders[0].config().tracking
    tags = {folder.run_id: {"row": row} for folder, row in zip(folders, ["base", "hyper"], strict=True)}
    start_study(results, "table1", tracking, folders, tags)
    for folder in folders:
        folder.end()
        assert push(folder)
    table = results / "table.md"
    table.write_text("| row |\n")
    end_study(results, "table1", tracking, "FAILED", [table])

    store = store_at(default_uri(results))
    parent = store.parent()
    assert (parent.info.run_name, parent.info.status) == ("table1", "FAILED")
    assert parent.data.tags["study"] == "table1"
    assert store.artifacts(parent) == {"table.md"}
    for folder, row in zip(folders, ["base", "hyper"], strict=True):
        run = store.child(folder)
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert (run.data.tags["row"], run.data.tags["study"]) == (row, "table1")
        assert run.info.run_name == f"{row} seed 0"

    start_study(results, "table1", tracking, folders, tags)  # resumed
    parent = store.parent()
    assert parent.info.status == "RUNNING"
    end_study(results, "table1", tracking, "FINISHED", [])
    parent = store.parent()
    assert parent.info.status == "FINISHED"


def test_a_run_of_two_studies_belongs_to_the_first(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    tracking = folder.config().tracking
    start_study(results, "one", tracking, [folder], {folder.run_id: {"row": "a"}})
    start_study(results, "two", tracking, [folder], {folder.run_id: {"row": "b"}})
    assert push(folder)
    tags = store_at(default_uri(results)).child(folder).data.tags
    assert (tags["study"], tags["row"]) == ("one", "a")


def test_without_tracking_nothing_is_made(results: Path, make_run: MakeRun) -> None:
    folder = make_run("residual=identity", "tracking=none")
    tracking = folder.config().tracking
    start_run(results, folder, tracking)
    start_study(results, "grid", tracking, [folder], {})
    assert push(folder)
    end_study(results, "grid", tracking, "FINISHED", [])
    assert sorted(file.name for file in (results / "runs").iterdir()) == [folder.run_id, "mlflow.db"]
    assert {file.name for file in folder.path.iterdir()} == {"config.yaml", "run.lock"}


_PUSHERS = """
import json
import os
import sys
from pathlib import Path

import mlflow.store.tracking.sqlalchemy_store  # once for all four; each opens the store itself

from mhc_lab.run_folder import RunFolder
from mhc_lab.tracking.mlflow import push


def work(folder):
    for step in range(1, 9):
        with folder.metrics_file.open("a") as out:
            out.write(json.dumps({"step": step, "grad_norm": 1.0}) + chr(10))
        assert push(folder)
    folder.write_record({"status": "finished", "metrics": {"val_loss": 1.0}})
    assert push(folder)


workers = []
for path in sys.argv[1:]:
    pid = os.fork()
    if pid == 0:
        work(RunFolder(Path(path)))
        os._exit(0)
    workers.append(pid)
assert all(os.waitpid(pid, 0)[1] == 0 for pid in workers)
"""


def test_four_processes_share_one_sqlite_file(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folders = [make_run("residual=identity", f"seed={seed}") for seed in range(4)]
    start_study(results, "grid", folders[0].config().tracking, folders, {})
    command = [sys.executable, "-c", _PUSHERS, *(str(folder.path) for folder in folders)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    store = store_at(default_uri(results))
    assert len(store.runs()) == 5
    for folder in folders:
        run = store.child(folder)
        assert run.info.status == "FINISHED"
        assert len(store.history(run, "grad_norm")) == 8


def test_fresh_processes_make_a_missing_store_once(results: Path, make_run: MakeRun, store_at: Any) -> None:
    (results / "runs" / "mlflow.db").unlink()  # where they would meet in MLflow's migrations
    folders = [make_run("residual=identity", f"seed={seed}") for seed in range(2)]
    command = [sys.executable, "-c", _PUSHERS, *(str(folder.path) for folder in folders)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    assert len(store_at(default_uri(results)).runs()) == 2


def test_a_server_that_is_down_costs_one_line(
    results: Path, make_run: MakeRun, caplog: pytest.LogCaptureFixture
) -> None:
    uri = f"http://127.0.0.1:{closed_port()}"
    folder = make_run("residual=identity", f"tracking.uri={uri}")
    with caplog.at_level(logging.WARNING):
        began = time.monotonic()
        start_study(results, "grid", folder.config().tracking, [folder], {})
        folder.log(1, 2)
        assert not push(folder)
        folder.end()
        assert not push(folder)
        end_study(results, "grid", folder.config().tracking, "FINISHED", [])
    assert time.monotonic() - began < 10
    (line,) = [r.getMessage() for r in caplog.records if r.name.startswith("mhc_lab")]
    assert "sync" in line
    assert uri in line


def test_a_uri_that_cannot_be_is_the_users_mistake(results: Path, make_run: MakeRun) -> None:
    folder = make_run("residual=identity", "tracking.uri=./mlruns")
    with pytest.raises(LabError, match=r"tracking\.uri=\./mlruns"):
        start_run(results, folder, TrackingConfig(uri="./mlruns"))


def test_an_unwritable_place_is_the_users_mistake(results: Path, make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = make_run("residual=identity")
    with pytest.raises(LabError, match="cannot be written"):
        start_run(results, folder, TrackingConfig(uri=f"sqlite:///{tmp_path}/file/mlflow.db"))


def test_the_state_says_where_it_went(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 2)
    assert push(folder)
    store = store_at(default_uri(results))
    state: dict[str, Any] = read_json(folder.mlflow_file) or {}
    assert state["uri"] == ""  # the results folder's own, wherever that is moved to
    assert state["servers"][""]["sent_lines"] == 2
    assert state["servers"][""]["run_id"] == store.child(folder).info.run_id
