"""Whose code is run: what the user names, and nothing that lies in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mhc_lab import cli
from mhc_lab.config import compose
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError
from mhc_lab.residual import registry
from mhc_lab.run_folder import RunFolder

TINY = ["model.blocks=1", "model.dim=16", "model.heads=2", "model.sequence_length=16", "data.batch_size=2",
        "data.val_windows=4", "trainer.max_steps=2", "trainer.threads=1", "tracking=none"]  # fmt: skip
PLUGIN = """
import torch
from pathlib import Path
from mhc_lab.residual import Constraint, register_constraint

Path({marker!r}).write_text("ran")

class Stay(Constraint):
    logits = 1
    def birth(self):
        return torch.zeros(1)
    def __call__(self, logits):
        n = self.streams
        return torch.eye(n).expand(*logits.shape[:-1], n, n) + 0 * logits.unsqueeze(-1)

register_constraint({name!r}, Stay)
"""


def plugin(place: Path, name: str, marker: Path) -> Path:
    file = place / f"{name}.py"
    file.write_text(PLUGIN.format(marker=str(marker), name=name))
    return file


def mhc_lab(*arguments: str, place: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mhc_lab", *arguments]
    return subprocess.run(command, cwd=place, capture_output=True, text=True)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A place with a run of a plugin's variant, made by a command that names it; and that run's folder."""
    place = tmp_path_factory.mktemp("plugged")
    plugin(place, "stay", place / "MARK")
    done = mhc_lab("train", "residual=stay", "residual.plugin=stay.py", *TINY, place=place)
    assert done.returncode == 0, done.stderr
    (run,) = (place / "results" / "runs").glob("stay-*")
    (place / "MARK").unlink()
    return place, run


def test_a_runs_plugin_is_not_run_by_commands_that_do_not_name_it(trained: tuple[Path, Path]) -> None:
    place, run = trained
    for command in (["retarget", str(run)], ["sinkhorn", "--checkpoint", str(run)]):
        refused = mhc_lab(*command, place=place)
        assert refused.returncode == 2
        (line,) = [text for text in refused.stderr.splitlines() if text]
        assert "is code that this command does not name" in line
        assert "--trust-plugin" in line
    assert not (place / "MARK").exists()
    trusted = mhc_lab("retarget", str(run), "--trust-plugin", place=place)
    assert trusted.returncode == 0, trusted.stderr
    assert (place / "MARK").read_text() == "ran"


def test_a_plugin_that_lies_where_nobody_named_one_is_nothing(tmp_path: Path) -> None:
    config = compose(["residual=identity", *TINY])
    folder = RunFolder.create(tmp_path / "results", config, corpus_fingerprint(config))
    plugin(folder.path, "plugin", tmp_path / "MARK")
    done = mhc_lab("train", "residual=identity", *TINY, place=tmp_path)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "MARK").exists()
    assert not folder.plugin_file.exists()


def test_an_exchanged_copy_is_refused_and_the_users_own_is_put_in_its_place(tmp_path: Path) -> None:
    own = plugin(tmp_path, "stay2", tmp_path / "OWN")
    config = compose(["residual=stay2", f"residual.plugin={own}", *TINY])
    folder = RunFolder.create(tmp_path / "results", config, corpus_fingerprint(config))
    plugin(folder.path, "plugin", tmp_path / "FOREIGN")
    with pytest.raises(LabError, match="does not name"):
        registry.load_plugin(folder.config().residual.plugin, named=False)
    RunFolder.create(tmp_path / "results", config, corpus_fingerprint(config))
    assert folder.plugin_file.read_bytes() == own.read_bytes()
    registry.load_plugin(folder.config().residual.plugin, named=False)  # of the hash that was named
    assert not (tmp_path / "FOREIGN").exists()


def test_a_study_names_no_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that was started by hand resolves what study.json holds; a path of a plugin in that is only text."""
    monkeypatch.setattr(registry, "_restricted", True)
    with pytest.raises(LabError, match="does not name"):
        compose(["residual=stay3", f"residual.plugin={plugin(tmp_path, 'stay3', tmp_path / 'MARK')}"])
    assert not (tmp_path / "MARK").exists()


def test_a_grids_workers_run_its_plugin(tmp_path: Path) -> None:
    plugin(tmp_path, "stay4", tmp_path / "MARK")
    (tmp_path / "g.yaml").write_text(
        f"baseline: identity\nseeds: [0]\noverrides: [{', '.join(TINY)}]\nrows:\n"
        "  identity: {overrides: [residual=identity]}\n"
        "  own: {overrides: [residual=stay4, residual.plugin=stay4.py]}\n"
    )
    done = mhc_lab("ablate", "./g.yaml", place=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def test_python_is_left_as_it_was(tmp_path: Path) -> None:
    assert cli.main(["status", "--results", str(tmp_path)]) == 0
    assert registry._restricted is False
