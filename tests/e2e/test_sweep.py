"""`mhc-lab sweep` as a user runs it: to its end, again, and refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from mlflow import MlflowClient
from optuna.trial import TrialState

from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.run_folder import RunFolder
from mhc_lab.study.sweep_file import load_sweep

MODEL = "model.blocks=1, model.dim=16, model.heads=2, model.sequence_length=32, data.batch_size=4, trainer.threads=1"
TINY = f"residual=mhc, {MODEL}, data=synthetic, data.val_windows=4, trainer.max_steps=9, tracking=none"
ONE = f"""
title: One trial
overrides: [{TINY}]
space: {{residual.t_max: {{int: [1, 20], log: true}}}}
trials: 1
enqueue: [{{residual.t_max: 3}}]
"""


def as_a_user(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "mhc-lab"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=200, check=False)


def write(place: Path, **changes: object) -> None:
    (place / "one.yaml").write_text(yaml.safe_dump({**yaml.safe_load(ONE), **changes}))


def trials(place: Path, study: str) -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=study, storage=f"sqlite:///{place}/results/runs/studies.db").trials


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which `mhc-lab sweep smoke` was run, and what it printed."""
    place = tmp_path_factory.mktemp("swept")
    done = as_a_user("sweep", "smoke", "trainer.threads=1", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    return place, done.stdout


@pytest.mark.slow
def test_smoke(swept: tuple[Path, str]) -> None:
    place, printed = swept
    found = trials(place, "smoke")
    assert len(found) == 6
    assert {trial.state for trial in found} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert "6 trials, 0 done, 6 to run" in printed
    for trial in found:
        (run_id,) = trial.user_attrs["runs"].values()
        record = json.loads((place / "results" / "runs" / run_id / "record.json").read_text())
        assert record["status"] == ("finished" if trial.state == TrialState.COMPLETE else "pruned")
        assert ("residual.t_max" in trial.params) == (trial.params["residual.sinkhorn"] != "permutations")
        if trial.state == TrialState.COMPLETE:
            assert trial.value == record["metrics"]["val_loss"]
    assert json.loads((place / "results" / "smoke" / "study.json").read_text())["kind"] == "sweep"


@pytest.mark.slow
def test_its_runs_are_children_of_one_in_mlflow(swept: tuple[Path, str]) -> None:
    place, _ = swept
    client = MlflowClient(tracking_uri=f"sqlite:///{place}/results/runs/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("mhc_lab").experiment_id])
    (parent,) = [run for run in found if "run_id" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.data.tags["trial"] for run in children} == {str(number) for number in range(6)}
    assert {run.info.status for run in children} <= {"FINISHED", "KILLED"}


@pytest.mark.slow
def test_again_there_is_nothing_to_run(swept: tuple[Path, str], mhc_lab: Any) -> None:
    place, _ = swept
    before = {str(file): file.stat().st_mtime_ns for file in place.rglob("metrics.jsonl")}
    done = mhc_lab("sweep", "smoke", "trainer.threads=1", cwd=place)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "6 trials, 6 done, 0 to run" in done.stdout
    assert {str(file): file.stat().st_mtime_ns for file in place.rglob("metrics.jsonl")} == before
    assert len(trials(place, "smoke")) == 6


@pytest.mark.slow
def test_status_of_a_sweep(swept: tuple[Path, str], mhc_lab: Any) -> None:
    place, _ = swept
    done = mhc_lab("status", "smoke", cwd=place)
    assert done.returncode == 0, done.stderr
    title, states, best = done.stdout.splitlines()
    assert title == "smoke: A sweep of seconds"
    found = trials(place, "smoke")
    pruned = sum(trial.state == TrialState.PRUNED for trial in found)
    assert states == f"6 trials: {6 - pruned} complete" + (f", {pruned} pruned" if pruned else "")
    lowest = min((t for t in found if t.state == TrialState.COMPLETE), key=lambda trial: trial.value)
    assert best.startswith(f"best: trial {lowest.number}, val loss {lowest.value:.4f}, ")


@pytest.mark.slow
def test_export_of_a_sweep(swept: tuple[Path, str], mhc_lab: Any) -> None:
    place, printed = swept
    folder = place / "results" / "smoke"
    assert "best" in printed
    page = (folder / "sweep.md").read_text()
    (folder / "sweep.md").unlink()
    done = mhc_lab("export", "smoke", cwd=place)
    assert done.returncode == 0, done.stderr
    assert str(Path("results") / "smoke" / "sweep.md") in done.stdout.splitlines()
    assert (folder / "sweep.md").read_text() == page
    assert json.loads((folder / "provenance.json").read_text())["export_command"] == "mhc-lab export smoke"
    (line,) = refused(place, "export", "smoke", "demo")
    assert "study 'smoke' is a sweep: export it by itself" in line
    (line,) = refused(place, "export", "smoke", "--margin", "0", "--strict")
    assert "--margin, --strict: for grids; sweep 'smoke' takes" in line


@pytest.mark.slow
def test_tuned_by_what_is_no_such_sweep(swept: tuple[Path, str]) -> None:
    place, _ = swept
    (line,) = refused(place, "ablate", "demo", "--tuned", "smoke", "--dry-run")
    assert "the sweep tunes nothing apart: give its file by: residual" in line
    (line,) = refused(place, "ablate", "demo", "--tuned", "smok", "--dry-run")
    assert "did you mean 'smoke'?" in line


@pytest.mark.slow
def test_another_space_in_the_same_study_is_refused(swept: tuple[Path, str]) -> None:
    place, _ = swept
    write(place, enqueue=[], trials=6)
    (line,) = refused(place, "sweep", "./one.yaml", "--study", "smoke")
    assert "study 'smoke' was made with another sweep (space: " in line
    assert "--study NAME" in line
    assert len(trials(place, "smoke")) == 6


def refused(place: Path, *arguments: str) -> list[str]:
    """The lines on stderr of a command that must exit with 2 and print nothing else."""
    done = as_a_user(*arguments, cwd=place)
    assert done.returncode == 2, done.stdout + done.stderr
    assert done.stderr.startswith("error: ")
    return done.stderr.splitlines()


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"space": {"residual.tmax": {"int": [1, 4]}}}, "did you mean 't_max'"),
        ({"space": {"residual.t_max": {"int": [20, 1]}}}, "the range [20, 1] is inverted"),
        ({"space": {"residual.t_max": {"in": [1, 20]}}}, "no key 'in'"),
        ({"samplr": "tpe"}, "did you mean 'sampler'"),
    ],
    ids=["unknown setting", "inverted range", "unknown key", "unknown key of the file"],
)
def test_a_file_that_cannot_be_run_is_refused(tmp_path: Path, changes: dict, says: str) -> None:
    write(tmp_path, **changes)
    (line,) = refused(tmp_path, "sweep", "./one.yaml")
    assert says in line
    assert not (tmp_path / "results").exists()


def test_a_storage_that_cannot_be_reached_is_said_soon(tmp_path: Path) -> None:
    write(tmp_path)
    started = time.monotonic()
    (line,) = refused(tmp_path, "sweep", "./one.yaml", "--storage", "postgresql://u:secret@127.0.0.1:1/x")
    assert time.monotonic() - started < 30  # of which some seconds are the start of the command
    assert "cannot be reached" in line
    assert "secret" not in line


def test_the_name_of_a_grid_is_no_sweep(tmp_path: Path) -> None:
    (line,) = refused(tmp_path, "sweep", "table1")
    assert "no sweep 'table1'" in line


def test_a_study_that_is_a_grid_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    study = tmp_path / "results" / "mine" / "study.json"
    study.parent.mkdir(parents=True)
    words = dict.fromkeys(("study", "grid", "title", "command", "created", "storage", "baseline"), "mine")
    study.write_text(json.dumps({**words, "overrides": [], "rows": [], "cells": [], "timing_config": {}}))
    (line,) = refused(tmp_path, "sweep", "./one.yaml", "--study", "mine")
    assert "study 'mine' is a grid" in line


@pytest.mark.slow
def test_the_question_of_a_killed_worker_does_not_stop_the_next(tmp_path: Path) -> None:
    """Its run had been asked at a later step than the new one begins with."""
    write(tmp_path, pruner={"name": "hyperband", "min_steps": 3, "factor": 3})
    config = load_sweep(str(tmp_path / "one.yaml")).config({"residual.t_max": 3}, 0)
    folder = RunFolder.create(tmp_path / "results", config, corpus_fingerprint(config))
    folder.ask(6, 99.0)
    done = as_a_user("sweep", "./one.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (trial,) = trials(tmp_path, "one")
    assert trial.state == TrialState.COMPLETE
    assert sorted(trial.intermediate_values) == [3, 6, 9]
    assert max(trial.intermediate_values.values()) < 99
