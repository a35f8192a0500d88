"""Run folders as a run would leave them, written by hand: tracking needs no training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from mhc_lab.config import compose
from mhc_lab.run_folder import RunFolder
from mhc_lab.tracking.store import prepare_store

METRICS = {
    "train_loss": 2.5,
    "val_loss": 2.25,
    "max_grad_norm": 1.5,
    "ms_per_step": 12.0,
    "steps": 30,
    "ds_error": None,
}


class Store:
    """What an MLflow store holds."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.client = MlflowClient(tracking_uri=uri)

    def runs(self) -> list[Run]:
        found = self.client.get_experiment_by_name("mhc_lab")
        return list(self.client.search_runs([found.experiment_id])) if found else []

    def children(self, folder: RunFolder) -> list[Run]:
        return [run for run in self.runs() if run.data.tags.get("run_id") == folder.run_id]

    def child(self, folder: RunFolder) -> Run:
        (run,) = self.children(folder)
        return run

    def parent(self) -> Run:
        (run,) = [run for run in self.runs() if "run_id" not in run.data.tags]
        return run

    def history(self, run: Run, key: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in self.client.get_metric_history(run.info.run_id, key))

    def artifacts(self, run: Run) -> set[str]:
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}


class Made(RunFolder):
    """A run folder that a test fills."""

    def log(self, first: int, last: int) -> None:
        """Append the steps `first` to `last`."""
        with self.metrics_file.open("a") as out:
            for step in range(first, last + 1):
                out.write(json.dumps({"step": step, "train_loss": 3.0 - step / 100, "grad_norm": 1.0}) + "\n")

    def end(self, status: str = "finished", reason: str | None = None) -> None:
        """Write the record."""
        config = self.config()
        content: dict[str, Any] = {
            "run_id": self.run_id,
            "status": status,
            "reason": reason,
            "started": "2026-01-02T03:04:05+00:00",
            "ended": "2026-01-02T03:05:05+00:00",
            "seconds": 60.0,
            "variant": config.residual.variant,
            "seed": config.seed,
            "control": config.control,
            "corpus_fingerprint": "c0ffee",
            "code_fingerprint": "badc0de",
            "metrics": METRICS if status == "finished" else dict.fromkeys(METRICS),
            "cost": {"parameters": 1000, "flops_per_token": 6000},
        }
        self.write_record(content)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated sqlite file without an experiment of ours: migrating takes two seconds, copying none."""
    home = tmp_path_factory.mktemp("store")
    prepare_store(f"sqlite:///{home}/mlflow.db", "unused", home)
    return home / "mlflow.db"


@pytest.fixture
def results(tmp_path: Path, empty_store: Path) -> Path:
    """A results folder whose default store is there already."""
    runs = tmp_path / "results" / "runs"
    runs.mkdir(parents=True)
    shutil.copyfile(empty_store, runs / "mlflow.db")
    return runs.parent


@pytest.fixture
def make_run(results: Path) -> Callable[..., Made]:
    def make(*overrides: str, results: Path = results) -> Made:
        return Made(RunFolder.create(results, compose(list(overrides)), "c0ffee").path)

    return make


@pytest.fixture
def store_at() -> type[Store]:
    return Store
