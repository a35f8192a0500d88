from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import optuna
import pytest
import yaml

from mhc_lab.run_folder import RunFolder
from mhc_lab.study.engine import run_cells
from mhc_lab.study.folder import StudyFolder
from mhc_lab.study.launchers.local import slots
from mhc_lab.study.spec import Grid, load_grid
from mhc_lab.study.storage import DEFAULT_STORAGE, resolve

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
    ) -> list[str]:
        """What `ablate` does before its table; the failures."""
        grid = self.grid(seeds, f"launcher.workers={workers}", *overrides)
        folder = self.folder()
        folder.check(grid)
        places = slots(grid.cells[0].config)
        return run_cells(grid, folder, places, rerun=rerun, keep=keep, command="again", target=f"fake_runs:{target}")

    def runs(self, grid: Grid | None = None) -> dict[tuple[str, int], RunFolder]:
        return {(cell.row, cell.seed): self.folder().run(cell.run_id) for cell in (grid or self.grid()).cells}

    def trials(self) -> list[optuna.trial.FrozenTrial]:
        study = optuna.load_study(study_name="grid", storage=resolve(DEFAULT_STORAGE, self.results))
        return study.get_trials(deepcopy=False)


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
    for module in ("engine", "plan"):
        monkeypatch.setattr(f"mhc_lab.study.{module}.code_fingerprint", lambda: fake_runs.CODE)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
    return Lab(file, tmp_path / "results")
