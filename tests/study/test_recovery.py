"""Real training by several workers, and under a SIGKILL: every cell once, with the numbers of an undisturbed grid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import yaml
from optuna.trial import TrialState

from mhc_lab.run_folder import RunFolder, read_json, runs_dir
from mhc_lab.study.engine import ablate, run_cells
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.launchers.local import slots
from mhc_lab.study.spec import load_grid
from mhc_lab.study.storage import DEFAULT_STORAGE, resolve
from mhc_lab.tracking.store import client, resolve_uri
from mhc_lab.training.run import run

pytestmark = pytest.mark.survival

TINY = [
    "data=synthetic",
    "tracking=none",
    "model.blocks=1",
    "model.dim=16",
    "model.heads=2",
    "model.sequence_length=16",
    "data.batch_size=2",
    "data.val_windows=4",
    "trainer.max_steps=150",
    "trainer.log_every=5",
    "trainer.threads=1",
    "trainer.keep_checkpoint=none",
]


def test_a_grid_whose_worker_was_killed_ends_with_the_same_numbers(tmp_path, monkeypatch):
    grid = tmp_path / "pair.yaml"
    rows = {name: {"overrides": [f"residual={name}"]} for name in ("identity", "mhc")}
    grid.write_text(yaml.safe_dump({"baseline": "identity", "seeds": [0, 1], "overrides": TINY, "rows": rows}))
    cells = load_grid(str(grid)).cells
    alone = [run(RunFolder.create(tmp_path / "alone", cell.config, cell.corpus_fingerprint)) for cell in cells]
    undisturbed = {record["run_id"]: record["metrics"]["val_loss"] for record in alone}

    disturbed = tmp_path / "results"
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    command = subprocess.run([sys.executable, "-c", COMMAND, str(grid), str(disturbed)], stderr=subprocess.PIPE)
    assert command.returncode == 0, command.stderr  # another worker has taken the place of the killed one

    folder = ablate(str(grid), results=disturbed)
    records = [RunFolder(runs_dir(disturbed) / run_id).record() or {} for run_id in undisturbed]
    assert {record["run_id"]: record["metrics"]["val_loss"] for record in records} == undisturbed
    timing = read_json(folder / "timing.json")
    assert timing is not None
    assert {row: entry["run_id"] for row, entry in timing["rows"].items()} == StudyFolder(disturbed, "pair").content()[
        "timing_config"
    ]
    assert (folder / "table.csv").read_text().count("\n") == 3
    done = [trial.user_attrs["run_id"] for trial in _trials(disturbed, TrialState.COMPLETE)]
    assert sorted(done) == sorted(cell.run_id for cell in cells)


def test_four_workers_train_forty_cells_once_each(tmp_path):
    """Forty real runs of a few steps, all workers on one sqlite study and one sqlite MLflow store."""
    grid = tmp_path / "pair.yaml"
    few = [*TINY, "trainer.max_steps=3", "tracking=mlflow", "launcher.workers=4"]
    rows = {name: {"overrides": [f"residual={name}"]} for name in ("identity", "hc", "mhc", "orthogonal")}
    content = {"baseline": "identity", "seeds": list(range(10)), "overrides": few, "rows": rows}
    grid.write_text(yaml.safe_dump(content))
    loaded = load_grid(str(grid))
    folder = StudyFolder(tmp_path / "results", "pair")
    places = slots(loaded.row("identity").config)
    assert len(places) == 4

    assert run_cells(loaded, folder, places) == []
    done = [trial.user_attrs["run_id"] for trial in _trials(folder.results, TrialState.COMPLETE)]
    assert sorted(done) == sorted(cell.run_id for cell in loaded.cells)
    every = optuna.load_study(study_name="pair", storage=resolve(DEFAULT_STORAGE, folder.results)).get_trials()
    assert len(every) == 40  # no stray, nothing taken twice
    assert len({trial.user_attrs["worker"] for trial in every}) == 4
    store = resolve_uri("", folder.results)
    experiment = client(store).get_experiment_by_name("mhc_lab")
    children = client(store).search_runs([experiment.experiment_id], "tags.row != ''", max_results=100)
    assert sorted(child.data.tags["run_id"] for child in children) == sorted(done)
    assert {child.info.status for child in children} == {"FINISHED"}


COMMAND = """
import pathlib, sys
from mhc_lab.study import engine
engine.DEFAULT_TARGET = "killed_training:killed_once_at_1"
engine.ablate(sys.argv[1], results=pathlib.Path(sys.argv[2]))
"""


def _trials(results: Path, state: TrialState) -> list[optuna.trial.FrozenTrial]:
    study = optuna.load_study(study_name="pair", storage=resolve(DEFAULT_STORAGE, results))
    return study.get_trials(deepcopy=False, states=(state,))
