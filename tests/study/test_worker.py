"""What becomes of cells when workers, their children and the command itself are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import fake_runs
import pytest
from optuna.trial import TrialState

from mhc_lab.errors import LabError
from mhc_lab.study.engine import enqueue
from mhc_lab.study.launchers.local import MOST_DEATHS
from mhc_lab.study.storage import DEFAULT_STORAGE, StudyStorage, resolve
from mhc_lab.study.worker import work

pytestmark = pytest.mark.survival


def test_killed_workers_are_replaced_until_that_is_no_accident(lab):
    """The run of seed 1 kills a worker once in each of the four rows; runs that end between them make it no row."""
    failures = lab.ablate("kills_its_worker_once_at_1", seeds=[0, 1])
    first = time.time()
    runs = lab.runs(lab.grid([0, 1]))
    for _ in range(2):
        failures = failures and lab.ablate("kills_its_worker_once_at_1", seeds=[0, 1])
    assert failures == []
    assert {seed: fake_runs.begun(run) for (_, seed), run in runs.items()} == {0: 1, 1: 2}
    # Its child ended with it: 2 s later it would have finished once more.
    time.sleep(max(0.0, first + 2.5 - time.time()))
    assert {fake_runs.ended(run) for run in runs.values()} == {1}


def test_workers_that_only_die_are_given_up(lab):
    failures = lab.ablate("kills_its_worker", seeds=[0])
    assert any("worker 0 was killed by SIGKILL" in line for line in failures)
    begun = sum(map(fake_runs.begun, lab.runs(lab.grid([0])).values()))
    assert begun == 1 + MOST_DEATHS


def test_the_other_worker_takes_over_from_a_killed_one(lab):
    assert lab.ablate("kills_its_worker_once_at_hc_1", seeds=[0, 1], workers=2) == []
    runs = lab.runs(lab.grid([0, 1]))
    assert {cell: fake_runs.begun(run) for cell, run in runs.items() if fake_runs.begun(run) != 1} == {("hc", 1): 2}
    assert {fake_runs.ended(run) for run in runs.values()} == {1}
    states = [trial.state for trial in lab.trials() if trial.user_attrs["run_id"] == runs["hc", 1].run_id]
    assert states == [TrialState.FAIL, TrialState.COMPLETE]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["told to stop", "killed"])
def test_workers_and_runs_end_with_the_command(lab, number):
    command = subprocess.Popen([sys.executable, "-c", SLOW_COMMAND, str(lab.file), str(lab.results)])
    runs = lab.runs(lab.grid([0]))
    try:
        _until(lambda: sum(fake_runs.begun(run) for run in runs.values()) == 2)
        pids = [json.loads((run.path / "begun").read_text())["pid"] for run in runs.values() if fake_runs.begun(run)]
    finally:
        command.send_signal(number)
    command.wait(60)
    _until(lambda: not any(_alive(pid) for pid in pids))
    killed = [run for run in runs.values() if fake_runs.begun(run)]
    _until(lambda: all(run.record() is not None for run in killed))
    assert {(run.record()["status"], run.record()["reason"]) for run in killed} == {("killed", "interrupted")}
    assert lab.ablate(seeds=[0], workers=2) == []
    assert {fake_runs.ended(run) for run in runs.values()} == {1}


def test_a_run_that_another_process_holds_is_waited_for(lab):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(lab.runs()["mhc", 0].path)], stdout=subprocess.PIPE)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    assert lab.ablate(seeds=[0]) == []
    assert holder.wait(60) == 0
    assert fake_runs.begun(lab.runs()["mhc", 0]) == 0  # the holder's result was taken
    assert {trial.user_attrs["row"]: trial.value for trial in lab.trials()}["mhc"] == 9.0


def test_a_worker_joins_a_study_by_its_name(lab):
    with pytest.raises(LabError, match="no study 'grid'"):
        work(lab.results, "grid")
    lab.ablate("raises", seeds=[0])
    work(lab.results, "grid", target="fake_runs:quick")  # nothing waits
    grid = lab.grid([0])
    storage = StudyStorage(resolve(DEFAULT_STORAGE, lab.results), "grid", lab.results, interval=1, grace=3)
    for run in lab.runs(grid).values():
        run.record_file.unlink()
    enqueue(storage, storage.create(), grid.cells)
    work(lab.results, "grid", target="fake_runs:quick")
    assert all(run.ended() for run in lab.runs(grid).values())
    with pytest.raises(LabError, match="did you mean 'grid'"):
        work(lab.results, "gird")


SLOW_COMMAND = """
import sys, pathlib
import mhc_lab.study.engine as engine
import mhc_lab.study.folder as folder
from mhc_lab.study.signals import interruptible
from mhc_lab.study.spec import load_grid
from mhc_lab.study.launchers.local import slots
grid = load_grid(sys.argv[1], [0], ["launcher.workers=2"])
study = folder.StudyFolder(pathlib.Path(sys.argv[2]), "grid")
with interruptible():
    engine.run_cells(grid, study, slots(grid.cells[0].config), target="fake_runs:slow")
"""

HOLDER = f"""
import json, pathlib, sys, time
from filelock import FileLock
folder = pathlib.Path(sys.argv[1])
folder.mkdir(parents=True)
with FileLock(folder / "run.lock"):
    print("held", flush=True)
    time.sleep(4)
    record = {{"status": "finished", "seconds": 4.0, "metrics": {{"val_loss": 9.0}}}}
    record["code_fingerprint"] = "{fake_runs.CODE}"
    (folder / "record.json").write_text(json.dumps(record))
"""


def _until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        # A zombie of this container's init is dead.
        return sys.platform != "linux" or "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (ProcessLookupError, FileNotFoundError):  # it may go between the question and the look
        return False
