from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml

from mhc_lab.config import RunConfig
from mhc_lab.run_folder import RunFolder
from mhc_lab.study.engine import run_cells
from mhc_lab.study.folder import OtherCode, StudyFolder
from mhc_lab.study.holding import alone
from mhc_lab.study.launchers.local import LocalLauncher, Slot, slots
from mhc_lab.study.spec import Grid, load_grid
from mhc_lab.study.storage import DEFAULT_STORAGE, resolve
from mhc_lab.study.sweep import run_trials
from mhc_lab.study.sweep_file import SweepSpec, load_sweep
from mhc_lab.study.trial import RUNS
from mhc_lab.study.worker import work

sys.path.insert(0, str(Path(__file__).parent))

import fake_runs

ROWS = {name: {"overrides": [f"residual={name}"]} for name in ("identity", "hc", "mhc", "orthogonal")}


@dataclasses.dataclass
class Lab:
    """A results folder with one grid, whose runs are stand-ins."""

    file: Path
    results: Path

    def grid(self, seeds: Sequence[int] | None = None, *overrides: str) -> Grid:
        return load_grid(str(self.file), seeds, overrides)

    def folder(self) -> StudyFolder:
        return StudyFolder(self.results, "grid")

    def ablate(
        self,
        target: str = "quick",
        *,
        seeds: Sequence[int] | None = None,
        workers: int = 1,
        overrides: Sequence[str] = (),
        rerun: bool = False,
        keep: bool = False,
        storage: str | None = None,
    ) -> list[str]:
        """What `ablate` does before its table; the failures."""
        grid = self.grid(seeds, f"launcher.workers={workers}", *overrides)
        folder = self.folder()
        folder.check(grid)
        places = slots(grid.cells[0].config)
        return run_cells(
            grid,
            folder,
            places,
            storage=storage,
            rerun=rerun,
            keep=keep,
            command="again",
            target=f"fake_runs:{target}",
        )

    def runs(self, grid: Grid | None = None) -> dict[tuple[str, int], RunFolder]:
        return {(cell.row, cell.seed): self.folder().run(cell.run_id) for cell in (grid or self.grid()).cells}

    def trials(self, storage: str = DEFAULT_STORAGE) -> list[optuna.trial.FrozenTrial]:
        study = optuna.load_study(study_name="grid", storage=resolve(storage, self.results))
        return study.get_trials(deepcopy=False)


class WorkerHere:
    """In the place of LocalLauncher: the worker's work, done when it is made."""

    def __init__(
        self, results: Path, study: str, url: str, config: RunConfig, places: Sequence[Slot], target: str
    ) -> None:
        assert len(places) == 1
        assert config.launcher.workers == 1
        work(results, study, storage=url, target=target)

    def running(self) -> int:
        return 0

    def finished(self) -> None:
        """Nobody is to be replaced."""

    def disk_full(self) -> bool:
        return False

    def deaths(self) -> list[str]:
        return []

    def stop(self) -> None:
        """There is nobody to stop."""


@dataclasses.dataclass
class Search:
    """A results folder with one sweep, whose runs are stand-ins. `content` is what its file holds."""

    file: Path
    results: Path
    content: dict[str, Any]
    patch: pytest.MonkeyPatch

    def spec(self, trials: int | None = None, typed: Sequence[str] = (), **changes: Any) -> SweepSpec:
        """The sweep with `changes` of its file's keys, and `typed` as overrides of the command."""
        self.file.write_text(yaml.safe_dump({**self.content, **changes}, sort_keys=False))
        return load_sweep(str(self.file), trials=trials, overrides=typed)

    def folder(self, study: str = "search") -> StudyFolder:
        return StudyFolder(self.results, study)

    def run(
        self,
        target: str = "valley",
        *,
        trials: int | None = None,
        workers: int = 1,
        study: str = "search",
        storage: str | None = None,
        other_code: OtherCode = "keep",  # launched workers have another code than the stand-ins
        launched: bool = False,
        **changes: Any,
    ) -> list[str]:
        """What `sweep` does before its report; the lines about trials whose runs died.

        One worker works in this process, which is quicker, unless it is to be `launched`.
        """
        launcher = LocalLauncher if launched or workers > 1 else WorkerHere
        self.patch.setattr("mhc_lab.study.sweep.LocalLauncher", launcher)
        spec = self.spec(trials, [f"launcher.workers={workers}"], **changes)
        folder = self.folder(study)
        with alone(folder):
            return run_trials(
                spec,
                folder,
                slots(spec.base),
                storage=storage,
                other_code=other_code,
                command="again",
                target=f"fake_runs:{target}",
            )

    def trials(self, study: str = "search", storage: str = DEFAULT_STORAGE) -> list[optuna.trial.FrozenTrial]:
        loaded = optuna.load_study(study_name=study, storage=resolve(storage, self.results))
        return loaded.get_trials(deepcopy=False)

    def runs(self, trial: optuna.trial.FrozenTrial) -> list[RunFolder]:
        """A trial's runs, in order of their seeds."""
        return [self.folder().run(run_id) for run_id in trial.user_attrs[RUNS].values()]


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Lab:
    file = tmp_path / "grid.yaml"
    content = {
        "title": "A grid",
        "baseline": "identity",
        "seeds": [0, 1, 2],
        "overrides": ["data=synthetic", "tracking=none", "launcher.heartbeat_interval=1", "launcher.heartbeat_grace=3"],
        "rows": ROWS,
    }
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    # The stand-ins are of one code, whatever is edited while the tests run.
    monkeypatch.setattr("mhc_lab.run_folder.changed", fake_runs.changed)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    return Lab(file, tmp_path / "results")


@pytest.fixture
def search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Search:
    content = {
        "title": "A search",
        "overrides": [
            "residual=mhc",
            "data=synthetic",
            "tracking=none",
            "trainer.max_steps=12",
            "launcher.heartbeat_interval=1",
            "launcher.heartbeat_grace=3",
        ],
        "space": {
            "optim.learning_rate": {"float": [1e-5, 0.1], "log": True},
            "residual.t_max": {"int": [1, 40], "log": True},
        },
        "sampler": {"name": "tpe", "seed": 3, "n_startup_trials": 2},
        "trials": 4,
    }
    monkeypatch.setattr("mhc_lab.run_folder.changed", fake_runs.changed)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    return Search(tmp_path / "search.yaml", tmp_path / "results", content, monkeypatch)
