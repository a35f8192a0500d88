from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.errors import LabError
from mhc_lab.run_folder import write_json
from mhc_lab.tracking.mlflow import end_study, push, start_study
from mhc_lab.tracking.store import default_uri
from mhc_lab.tracking.sync import sync

MakeRun = Callable[..., Any]
STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def a_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_runs_never_sent_are_sent_whole_and_once(results: Path, make_run: MakeRun, store_at: Any) -> None:
    ended, planned = make_run("residual=identity", "tracking=none"), make_run("residual=hc")
    ended.log(1, 3)
    ended.end()
    done = sync(results)
    assert (done.runs, done.sent, done.uris) == (1, 1, [default_uri(results)])
    store = store_at(default_uri(results))
    run = store.child(ended)
    assert run.info.status == "FINISHED"
    assert run.info.start_time == 1000 * STARTED.timestamp()
    assert run.info.end_time - run.info.start_time == 60_000
    assert store.children(planned) == []
    assert sync(results).sent == 0
    assert len(store.history(store.child(ended), "grad_norm")) == 3


def test_what_a_push_missed_follows(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 2)
    assert push(folder)
    folder.log(3, 4)
    folder.end("failed", "out of memory")
    assert sync(results).sent == 1
    store = store_at(default_uri(results))
    run = store.child(folder)
    assert run.info.status == "FAILED"
    assert len(store.history(run, "grad_norm")) == 4


def test_a_run_without_record_is_killed_unless_a_process_holds_it(
    results: Path, make_run: MakeRun, store_at: Any
) -> None:
    folder = make_run("residual=identity")
    folder.log(1, 2)
    store = store_at(default_uri(results))
    with folder.lock():
        sync(results)
        assert store.child(folder).info.status == "RUNNING"
    sync(results)
    assert store.child(folder).info.status == "KILLED"
    folder.log(3, 3)  # it was a copy of a run that went on elsewhere
    folder.end()
    sync(results)
    assert store.child(folder).info.status == "FINISHED"
    assert len(store.history(store.child(folder), "grad_norm")) == 3


def test_a_folder_from_another_machine(results: Path, make_run: MakeRun, store_at: Any, tmp_path: Path) -> None:
    there = tmp_path / "there"
    folders = [make_run("residual=identity", results=there), make_run("residual=hc", results=there)]
    tags = {folders[0].run_id: {"row": "base"}, folders[1].run_id: {"row": "hyper"}}
    start_study(there, "table1", folders[0].config().tracking, folders, tags)
    for folder in folders:
        folder.log(1, 2)
        folder.end()
        assert push(folder)
    copies = tmp_path / "copies"
    for _ in range(2):  # copied again over the first copy: what was known of the sending is lost
        shutil.copytree(there / "runs", copies, dirs_exist_ok=True)
        if there.is_dir():
            there.rename(tmp_path / "gone")
        done = sync(results, paths=[copies])
        there = tmp_path / "gone"
    assert done.uris == [default_uri(results)]
    store = store_at(default_uri(results))
    parent = store.parent()
    assert (parent.info.run_name, parent.info.status) == ("table1", "FINISHED")
    for folder, row in zip(folders, ["base", "hyper"], strict=True):
        run = store.child(folder)
        assert run.data.tags["row"] == row
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert len(store.history(run, "grad_norm")) == 2
    assert not (tmp_path / "runs").exists()


def test_runs_made_without_tracking_find_their_study(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder = make_run("residual=identity", "tracking=none")
    cells = [{"row": "base", "seed": 0, "run_id": folder.run_id}]
    (results / "grid").mkdir()
    write_json(results / "grid" / "study.json", {"study": "grid", "title": "A grid", "cells": cells})
    (results / "grid" / "table.md").write_text("| |\n")
    folder.end("diverged", "loss is nan")
    sync(results)
    store = store_at(default_uri(results))
    parent, run = store.parent(), store.child(folder)
    assert run.data.tags["row"] == "base"
    assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert (parent.info.status, parent.data.tags["title"]) == ("FINISHED", "A grid")
    assert store.artifacts(parent) == {"table.md"}


def test_a_study_with_cells_to_come_stays_running(results: Path, make_run: MakeRun, store_at: Any) -> None:
    folder, other = make_run("residual=identity"), make_run("residual=hc")
    cells = [{"row": "r", "seed": 0, "run_id": f.run_id} for f in (folder, other)]
    (results / "grid").mkdir()
    write_json(results / "grid" / "study.json", {"study": "grid", "cells": cells})
    start_study(results, "grid", folder.config().tracking, [folder, other], {})
    folder.end()
    sync(results)
    store = store_at(default_uri(results))
    assert store.parent().info.status == "RUNNING"
    other.end("failed", "out of memory")
    sync(results)
    assert store.parent().info.status == "FAILED"


def test_two_servers_are_kept_apart(
    results: Path, make_run: MakeRun, store_at: Any, tmp_path: Path, empty_store: Path
) -> None:
    (tmp_path / "other").mkdir()
    shutil.copyfile(empty_store, tmp_path / "other" / "mlflow.db")
    other = f"sqlite:///{tmp_path}/other/mlflow.db"
    folder = make_run("residual=identity")
    start_study(results, "grid", folder.config().tracking, [folder], {})
    folder.log(1, 2)
    folder.end()
    assert push(folder)
    end_study(results, "grid", folder.config().tracking, "FINISHED", [])
    assert sync(results).sent == 0
    assert sync(results, other).sent == 1
    assert sync(results, other).sent == 0
    for uri in (default_uri(results), other):
        store = store_at(uri)
        run = store.child(folder)
        assert run.info.status == "FINISHED"
        assert run.data.tags["mlflow.parentRunId"] == store.parent().info.run_id
        assert store.parent().info.status == "FINISHED"
        assert len(store.history(run, "grad_norm")) == 2


def test_a_run_that_the_store_lost_is_sent_again_but_not_one_that_was_deleted(
    results: Path, make_run: MakeRun, store_at: Any
) -> None:
    lost, deleted = make_run("residual=identity"), make_run("residual=hc")
    for folder in (lost, deleted):
        folder.end()
        assert push(folder)
    store = store_at(default_uri(results))
    store.client.delete_run(store.child(deleted).info.run_id)
    state = lost.mlflow_file.read_text()
    lost.mlflow_file.write_text(
        state.replace(store.child(lost).info.run_id, "0" * 32).replace('"attempt": "', '"attempt": "0')
    )
    assert sync(results).sent == 1
    assert store.children(deleted) == []
    assert len(store.children(lost)) == 2


def test_bad_input(results: Path, make_run: MakeRun, tmp_path: Path) -> None:
    folder = make_run("residual=identity")
    folder.end()
    before = sorted((file, file.stat().st_mtime_ns) for file in folder.path.iterdir() if file.suffix != ".lock")
    with pytest.raises(LabError, match="no run folder"):
        sync(results, paths=[tmp_path / "nowhere"])
    with pytest.raises(LabError, match="cannot be reached"):
        sync(results, f"http://127.0.0.1:{a_port()}")
    with pytest.raises(LabError, match=r"tracking\.uri=mlruns"):
        sync(results, "mlruns")
    assert sorted((file, file.stat().st_mtime_ns) for file in folder.path.iterdir() if file.suffix != ".lock") == before


@pytest.fixture
def server(tmp_path: Path, empty_store: Path) -> Iterator[str]:
    """A real tracking server, started when the test begins."""
    shutil.copyfile(empty_store, tmp_path / "server.db")
    uri = f"http://127.0.0.1:{(port := a_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    command += ["--artifacts-destination", str(tmp_path / "served"), "--port", str(port), "--workers", "1"]
    quiet: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, cwd=tmp_path, **quiet)
    while process.poll() is None:
        try:
            urllib.request.urlopen(f"{uri}/health").close()
            break
        except OSError:
            time.sleep(0.1)
    assert process.poll() is None
    yield uri
    os.killpg(process.pid, signal.SIGKILL)  # its own shutdown takes seconds
    process.wait()


def test_a_store_of_another_user_is_said_at_once(
    results: Path, make_run: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run("residual=identity", "tracking=none").end()
    monkeypatch.setattr("mhc_lab.tracking.store.os.access", lambda *_: False)
    with pytest.raises(LabError, match=r"mlflow\.db cannot be written"):
        sync(results)


def test_a_server_over_http(results: Path, make_run: MakeRun, store_at: Any, server: str) -> None:
    folder = make_run("residual=identity", f"tracking.uri=http://127.0.0.1:{a_port()}")
    start_study(results, "grid", folder.config().tracking, [folder], {})
    folder.log(1, 20)
    folder.end()
    assert not push(folder)
    assert sync(results, server).sent == 1
    store = store_at(server)
    run = store.child(folder)
    assert run.info.status == "FINISHED"
    assert len(store.history(run, "grad_norm")) == 20
    assert store.artifacts(run) == {"config.yaml", "record.json"}
    assert run.data.tags["mlflow.parentRunId"] == store.parent().info.run_id
    assert store.parent().info.status == "FINISHED"
    assert sync(results, server).sent == 0
