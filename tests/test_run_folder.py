"""The run folder: whole files or none, and what survives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from filelock import Timeout

from mhc_lab.config import RunConfig
from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder


def test_config_round_trip(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    config = tiny("residual=hc", "residual.h_post_home=1.5")
    folder = RunFolder.create(tmp_path, config, "corpus")
    assert RunFolder(folder.path).config() == config
    assert RunFolder.create(tmp_path, config, "corpus").path == folder.path


def test_a_torn_last_line_is_left_out(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    folder = RunFolder.create(tmp_path, tiny(), "corpus")
    folder.metrics_file.write_text('{"step": 1, "train_loss": 2.0}\n{"step": 2, "tra')
    assert folder.metrics() == [{"step": 1, "train_loss": 2.0}]


def test_ended_means_finished_or_diverged(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    folder = RunFolder.create(tmp_path, tiny(), "corpus")
    assert not folder.ended()
    for status, ended in {"finished": True, "diverged": True, "failed": False, "killed": False}.items():
        folder.write_record({"status": status, "metrics": {"val_loss": 1.0}})
        assert folder.ended() is ended


def test_one_process_at_a_time(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    folder = RunFolder.create(tmp_path, tiny(), "corpus")
    with folder.lock(), pytest.raises(Timeout):
        RunFolder(folder.path).lock().acquire(timeout=0)


def test_an_unwritable_place_is_one_line(tmp_path: Path, tiny: Callable[..., RunConfig]) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LabError, match="--results"):
        RunFolder.create(tmp_path / "file", tiny(), "corpus")
    with pytest.raises(LabError, match="not a run folder"):
        RunFolder(tmp_path).config()
