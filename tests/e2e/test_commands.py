"""The commands as a user runs them, each in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

SMALL = ["model.blocks=1", "model.dim=16", "model.sequence_length=32", "data=synthetic", "data.val_windows=4"]
GRID = f"""
title: Two rows
baseline: identity
seeds: [0, 1]
overrides: [trainer.max_steps=6, trainer.log_every=2, {", ".join(SMALL)}]
rows:
  identity: {{overrides: [residual=identity]}}
  mhc: {{overrides: [residual=mhc, residual.t_max=3]}}
"""


def as_a_user(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "mhc-lab"), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)


def states(folder: Path, name: str) -> dict[str, int]:
    return {str(file): file.stat().st_mtime_ns for file in folder.rglob(name)}


def test_train_and_again(tmp_path: Path) -> None:
    command = ["train", "residual=mhc", "trainer.max_steps=4", "tracking=none", *SMALL]
    first = as_a_user(*command, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    (folder,) = (tmp_path / "results" / "runs").iterdir()
    assert "val_loss" in first.stdout
    assert f"results/runs/{folder.name}" in first.stdout
    assert {"config.yaml", "metrics.jsonl", "gains.jsonl", "record.json", "checkpoint.pt"} <= {
        file.name for file in folder.iterdir()
    }
    before = states(folder, "*")
    again = as_a_user(*command, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert "has a result already" in again.stdout
    assert again.stdout.splitlines()[-1] == first.stdout.splitlines()[-1]
    assert states(folder, "*") == before

    record = json.loads((folder / "record.json").read_text())
    (folder / "record.json").write_text(json.dumps({**record, "code_fingerprint": "of other code"}))
    refused = as_a_user(*command, cwd=tmp_path)
    assert refused.returncode == 2
    assert "--rerun" in refused.stderr
    assert "--keep" in refused.stderr
    assert as_a_user(*command, "--keep", cwd=tmp_path).returncode == 0


def remarks(stderr: str) -> list[str]:
    """What a command says beside its results, but how busy this machine happens to be."""
    return [line for line in stderr.splitlines() if "the machine was busy" not in line]


@pytest.fixture(scope="module")
def studied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder in which a grid was run, and what the command printed."""
    place = tmp_path_factory.mktemp("studied")
    (place / "grid.yaml").write_text(GRID)
    ended = as_a_user("ablate", "./grid.yaml", cwd=place)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return place, ended.stdout


def test_ablate(studied: tuple[Path, str]) -> None:
    place, printed = studied
    assert "identity" in printed
    assert "results/grid/table.md" in printed
    records = [json.loads(file.read_text()) for file in (place / "results" / "runs").glob("*/record.json")]
    assert sorted((record["variant"], record["seed"], record["status"]) for record in records) == [
        ("identity", 0, "finished"),
        ("identity", 1, "finished"),
        ("mhc", 0, "finished"),
        ("mhc", 1, "finished"),
    ]


def test_the_study_is_in_mlflow(studied: tuple[Path, str]) -> None:
    results = studied[0] / "results"
    client = MlflowClient(tracking_uri=f"sqlite:///{results}/runs/mlflow.db")
    found = client.get_experiment_by_name("mhc_lab")
    assert found is not None
    runs = client.search_runs([found.experiment_id])
    (parent,) = [run for run in runs if "run_id" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {run.info.run_name for run in children} == {
        "identity seed 0", "identity seed 1", "mhc seed 0", "mhc seed 1"
    }  # fmt: skip
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert len(runs) == 5
    child = children[0]
    folder = results / "runs" / child.data.tags["run_id"]
    record = json.loads((folder / "record.json").read_text())
    assert child.data.metrics["val_loss"] == pytest.approx(record["metrics"]["val_loss"])
    assert {file.path for file in client.list_artifacts(child.info.run_id)} == {
        "config.yaml", "gains.jsonl", "record.json"
    }  # fmt: skip
    assert "table.csv" in {file.path for file in client.list_artifacts(parent.info.run_id)}


def test_ablate_again_runs_nothing(studied: tuple[Path, str], mhc_lab: Any) -> None:
    place, _ = studied
    before = states(place / "results" / "runs", "record.json")
    ended = mhc_lab("ablate", "./grid.yaml", cwd=place)
    assert ended.returncode == 0, ended.stderr
    assert "0 to run" in ended.stdout
    assert states(place / "results" / "runs", "record.json") == before


def test_a_dry_run_of_a_study_that_is_done(studied: tuple[Path, str], mhc_lab: Any) -> None:
    ended = mhc_lab("ablate", "./grid.yaml", "--dry-run", cwd=studied[0])
    assert ended.returncode == 0, ended.stderr
    assert "4 done, 0 to run" in ended.stdout


def test_status(studied: tuple[Path, str], mhc_lab: Any) -> None:
    listed = mhc_lab("status", cwd=studied[0])
    assert "grid   grid  4 of 4" in listed.stdout
    shown = mhc_lab("status", "grid", cwd=studied[0])
    assert shown.returncode == 0, shown.stderr
    assert "4 finished" in shown.stdout


def test_export(studied: tuple[Path, str], mhc_lab: Any) -> None:
    study = studied[0] / "results" / "grid"
    (study / "table.csv").unlink()
    ended = mhc_lab("export", "grid", "--format", "csv", cwd=studied[0])
    assert ended.returncode == 0, ended.stderr
    assert "results/grid/table.csv" in ended.stdout
    head, *rows = (study / "table.csv").read_text().splitlines()
    assert head.startswith("row,baseline,variant,h_res,h_pre,h_post,streams,cells,seeds,val_loss")
    assert [row.split(",")[0] for row in rows] == ["identity", "mhc"]


def test_export_of_everything_measured_from_another_row(
    studied: tuple[Path, str], tmp_path: Path, mhc_lab: Any
) -> None:
    shutil.copytree(studied[0] / "results", tmp_path / "results")
    ended = mhc_lab("export", "grid", "--baseline", "mhc", "--margin", "0.5", "--gap", "0.03", cwd=tmp_path)
    assert ended.returncode == 0, ended.stderr
    told = ended.stdout.splitlines()
    for path in ("table.md", "table.tex", "table.csv", "figures/loss_gap.svg", "figures/gains.png", "report.html"):
        assert f"results/grid/{path}" in told
        assert (tmp_path / "results" / "grid" / path).stat().st_size
    assert not remarks(ended.stderr)
    table = (tmp_path / "results" / "grid" / "table.md").read_text()
    assert "Loss gap: row − mhc" in table
    assert "within ±0.5" in table


def test_export_of_a_study_that_lacks_a_run(studied: tuple[Path, str], tmp_path: Path, mhc_lab: Any) -> None:
    shutil.copytree(studied[0] / "results", tmp_path / "results")
    next((tmp_path / "results" / "runs").glob("mhc-*/record.json")).unlink()
    ended = mhc_lab("export", "grid", "--format", "md", cwd=tmp_path)
    assert ended.returncode == 0
    assert remarks(ended.stderr) == ["warning: 1 of 4 cells have no result (1 not run), in rows mhc"]
    assert "1 of 2" in (tmp_path / "results" / "grid" / "table.md").read_text()
    strict = mhc_lab("export", "grid", "--format", "md", "--strict", cwd=tmp_path)
    assert strict.returncode == 3
    assert "--strict" in strict.stderr


def test_export_refuses_what_cannot_be_compared(studied: tuple[Path, str], tmp_path: Path, mhc_lab: Any) -> None:
    shutil.copytree(studied[0] / "results", tmp_path / "results")
    record = next((tmp_path / "results" / "runs").glob("mhc-*/record.json"))
    record.write_text(json.dumps({**json.loads(record.read_text()), "corpus_fingerprint": "another"}))
    refused = mhc_lab("export", "grid", "--format", "md", cwd=tmp_path)
    assert refused.returncode == 2
    assert "the runs differ in corpus_fingerprint" in refused.stderr
    assert "--allow-mixed" in refused.stderr
    taken = mhc_lab("export", "grid", "--format", "md", "--allow-mixed", cwd=tmp_path)
    assert taken.returncode == 0
    assert "warning: the runs differ in corpus_fingerprint" in taken.stderr
    unknown = mhc_lab("export", "grid", "--baseline", "identiy", cwd=tmp_path)
    assert (unknown.returncode, "did you mean 'identity'" in unknown.stderr) == (2, True)


def test_sync_has_nothing_left_to_send(studied: tuple[Path, str]) -> None:
    ended = as_a_user("sync", cwd=studied[0])
    assert ended.returncode == 0, ended.stderr
    assert "4 runs looked at, 0 of them had something to send" in ended.stdout
