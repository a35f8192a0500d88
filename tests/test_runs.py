"""`mhc-lab runs`: what is listed, and what may be removed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from mhc_lab import cli
from mhc_lab.config import compose
from mhc_lab.config.compose import to_dict
from mhc_lab.errors import LabError
from mhc_lab.run_folder import RunFolder, runs_dir, write_json
from mhc_lab.runs import chosen, remove, runs


def make(results: Path, run_id: str, status: str | None = "finished", seed: int = 0) -> RunFolder:
    folder = RunFolder(runs_dir(results) / run_id)
    folder.path.mkdir(parents=True)
    folder.config_file.write_text(yaml.safe_dump(to_dict(compose())))
    if status is not None:
        ended = f"2026-01-0{seed + 1}T00:00:00.000+00:00"
        record = {"status": status, "reason": "", "seed": seed, "ended": ended, "metrics": {"val_loss": 2.5}}
        folder.write_record(record)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """Two finished runs, one of them a cell of grid g, a failed one and one that was never begun."""
    make(tmp_path, "mhc-aaaaaaaaaaaa", seed=0)
    make(tmp_path, "row_stochastic-bbbbbbbbbbbb", seed=1)
    make(tmp_path, "hc-cccccccccccc", "failed", seed=2)
    make(tmp_path, "identity-dddddddddddd", None)
    study = tmp_path / "g"
    study.mkdir()
    cells = [{"row": "mhc", "seed": 0, "run_id": "mhc-aaaaaaaaaaaa"}]
    content = dict.fromkeys(("command", "storage", "grid", "baseline"), "x") | {"overrides": [], "timing_config": {}}
    content |= {"study": "g", "title": "t", "created": "2026-01-01", "cells": cells, "rows": []}
    write_json(study / "study.json", content)
    return tmp_path


def test_every_run_is_listed_with_what_uses_it(results: Path) -> None:
    found = {run.run_id: run for run in runs(results)}
    assert runs(results)[0].run_id == "hc-cccccccccccc"  # the latest
    assert found["mhc-aaaaaaaaaaaa"].studies == ("g",)
    assert found["row_stochastic-bbbbbbbbbbbb"].variant == "row_stochastic"
    assert found["identity-dddddddddddd"].status == "waiting"
    assert all(run.size > 1000 for run in found.values())


def test_a_damaged_record_is_listed_as_such(results: Path) -> None:
    (runs_dir(results) / "mhc-aaaaaaaaaaaa" / "record.json").write_text("{")
    assert [run.run_id for run in chosen(results, status=["damaged"])] == ["mhc-aaaaaaaaaaaa"]


def test_what_a_study_uses_is_removed_by_force_alone(results: Path) -> None:
    picked = chosen(results, ["mhc-aaaaaaaaaaaa"])
    with pytest.raises(LabError, match=r"study 'g' uses it; --force"):
        remove(results, picked)
    assert (runs_dir(results) / "mhc-aaaaaaaaaaaa").is_dir()
    assert remove(results, picked, force=True) > 1000
    assert not (runs_dir(results) / "mhc-aaaaaaaaaaaa").exists()


def test_what_a_process_works_on_stays_and_so_does_all_else(results: Path) -> None:
    held = RunFolder(runs_dir(results) / "hc-cccccccccccc")
    picked = chosen(results, unused=True)
    assert len(picked) == 3
    with held.lock(), pytest.raises(LabError, match="a process works on it"):
        remove(results, picked)
    assert all((runs_dir(results) / run.run_id).is_dir() for run in picked)


def test_removing_asks_for_a_choice_and_for_a_yes(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", "--remove", "--yes", "--results", str(results)]) == 2
    assert "say which" in capsys.readouterr().err
    monkeypatch.setattr("typer.confirm", lambda _: False)
    assert cli.main(["runs", "--remove", "--status", "failed", "--results", str(results)]) == 0
    assert (runs_dir(results) / "hc-cccccccccccc").is_dir()
    assert cli.main(["runs", "--remove", "--status", "failed", "--yes", "--results", str(results)]) == 0
    assert not (runs_dir(results) / "hc-cccccccccccc").exists()


@pytest.mark.parametrize(
    ("arguments", "says"), [(["mhc-0"], "no run 'mhc-0'"), (["--status", "finishd"], "did you mean 'finished'?")]
)
def test_a_mistake_is_one_line(
    results: Path, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["runs", *arguments, "--results", str(results)]) == 2
    assert says in capsys.readouterr().err


def test_a_study_that_cannot_be_read_is_a_warning_until_something_hangs_on_it(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "g" / "study.json").write_text("{")
    assert cli.main(["runs", "--json", "--results", str(results)]) == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)) == 4
    assert "study 'g' uses cannot be told" in err
    assert cli.main(["runs", "--unused", "--results", str(results)]) == 2


def test_status_lists_studies_and_gives_data(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["status", "--results", str(results)]) == 0
    assert "1 of 1" in capsys.readouterr().out
    assert cli.main(["status", "--json", "--results", str(results)]) == 0
    (study,) = json.loads(capsys.readouterr().out)
    assert (study["study"], study["kind"], study["done"], study["total"]) == ("g", "grid", 1, 1)
    assert cli.main(["status", "g", "--json", "--results", str(results)]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["state"] == "finished"
