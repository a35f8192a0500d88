"""Damaged files: one line that names the file and what mends it, in every command; and what it says works."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from mhc_lab import cli
from mhc_lab.errors import LabError
from mhc_lab.files import GRID, RECORD, misfit, own_file, read_json, read_lines
from mhc_lab.run_folder import RunFolder

GARBAGE: list[bytes] = [
    b"",
    b"{",
    b"\0" * 64,
    b"\xff\xfe\x80garbage",
    b"null",
    b"[]",
    b"{}",
    b"3",
    b'"text"',
    b"[" * 50_000,
]


@pytest.fixture
def results(studied: Path, tmp_path: Path) -> Path:
    shutil.copytree(studied / "results", tmp_path / "results")
    return tmp_path / "results"


def commands(studied: Path, results: Path) -> list[list[str]]:
    (run,) = (results / "runs").glob("mhc-*")
    where = ["--results", str(results)]
    return [
        ["status", *where],
        ["status", "g", *where],
        ["status", "g", "--json", *where],
        ["runs", *where],
        ["export", "g", "--format", "md,csv", *where],
        ["ablate", str(studied / "g.yaml"), "--dry-run", *where],
        ["retarget", str(run), "--t-max", "1", "--dtype", "float32", *where],
    ]


def check(code: int, err: str, what: str) -> None:
    lines = [line for line in err.splitlines() if line.startswith("error:")]
    assert code in (0, 2, 3), f"{what}: {code}\n{err}"
    assert "Traceback" not in err, f"{what}:\n{err}"
    assert len(lines) == (1 if code else 0), f"{what}: {err}"
    assert all(len(line) < 400 for line in lines), what


@pytest.mark.parametrize(
    "name",
    ["g/study.json", "g/timing.json", "record.json", "metrics.jsonl", "gains.jsonl", "config.yaml", "checkpoint.pt"],
)
def test_every_command_says_what_is_wrong(
    name: str, studied: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = (results / "runs").glob("mhc-*")
    file = results / name if "/" in name else run / name
    whole = file.read_bytes()
    reading = commands(studied, results)
    if name not in ("record.json", "config.yaml", "checkpoint.pt"):
        reading = reading[:-1]  # retarget looks at nothing else
    for content in [*GARBAGE, whole[: len(whole) // 2]]:
        file.write_bytes(content)
        for command in reading:
            check(cli.main(command), capsys.readouterr().err, f"{name} = {content[:20]!r}: {command[0]}")
    file.unlink()
    file.mkdir()
    for command in reading:
        check(cli.main(command), capsys.readouterr().err, f"{name} is a folder: {command[0]}")


def test_the_remedy_for_a_study_works_beside_its_timing(studied: Path, results: Path) -> None:
    (results / "g" / "study.json").write_text("{")
    command = ["ablate", str(studied / "g.yaml"), "--results", str(results)]
    assert cli.main(command) == 2
    (results / "g" / "study.json").unlink()
    assert (results / "g" / "timing.json").is_file()
    assert cli.main(command) == 0


@pytest.mark.parametrize("key", ["overrides", "control", "paper_loss_gap", "tuned"])
def test_a_row_of_an_earlier_version_lacks_a_key(key: str, results: Path) -> None:
    file = results / "g" / "study.json"
    content = json.loads(file.read_text())
    for row in content["rows"]:
        del row[key]
    file.write_text(json.dumps(content))
    assert cli.main(["export", "g", "--format", "md,csv", "--results", str(results)]) == 0


def mutations(content: Any, seed: int, count: int) -> list[Any]:
    """The same object with a value of another type, a key that is missing, or one more, somewhere inside."""
    rng, found = random.Random(seed), []
    for _ in range(count):
        copy = json.loads(json.dumps(content))
        places = list(_places(copy))
        holder, key = rng.choice(places)
        how = rng.randrange(3)
        if how == 0 and isinstance(holder, dict):
            del holder[key]
        else:
            holder[key] = rng.choice([None, [], {}, "x", -1, 1e400, True, "../../../etc", [[1]], {"a": None}])
        found.append(copy)
    return found


def _places(content: Any) -> list[tuple[Any, Any]]:
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [place for key, value in items for place in [(content, key), *_places(value)]]


@pytest.mark.parametrize("name", ["g/study.json", "g/timing.json", "record.json"])
def test_other_types_inside_are_found(
    name: str, studied: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = (results / "runs").glob("mhc-*")
    file = results / name if "/" in name else run / name
    for mutated in mutations(json.loads(file.read_text()), seed=0, count=25):
        file.write_text(json.dumps(mutated))
        for command in commands(studied, results)[1:6]:
            check(cli.main(command), capsys.readouterr().err, f"{name}: {command[0]}: {json.dumps(mutated)[:3000]}")


@pytest.mark.parametrize("inner", [{"model": 3}, {"config": 3}, {"vocab_size": "x"}, {"vocab_size": -1}, {"run_id": 1}])
def test_a_checkpoint_of_other_types_is_none(inner: dict[str, Any], results: Path) -> None:
    (run,) = (results / "runs").glob("mhc-*")
    torch.save({**torch.load(run / "checkpoint.pt", weights_only=True), **inner}, run / "checkpoint.pt")
    assert cli.main(["retarget", str(run), "--results", str(results)]) == 2


def test_links_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "private").write_text('{"status": "finished"}')
    (tmp_path / "record.json").symlink_to(tmp_path / "private")
    with pytest.raises(LabError, match="a link, which is not followed"):
        read_json(tmp_path / "record.json")
    with pytest.raises(LabError, match="a link"):
        own_file(tmp_path / "record.json")


def test_a_torn_last_line_is_left_out_and_any_other_is_named(tmp_path: Path) -> None:
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"step": 1}\n{"step": 2}\n{"ste')
    assert [line["step"] for line in read_lines(log, {"step": int})] == [1, 2]
    log.write_text('{"step": 1}\n{"ste\n{"step": 3}\n')
    with pytest.raises(LabError, match=r"line 2 is no JSON"):
        list(read_lines(log, {"step": int}))


def test_a_shape_says_where_it_does_not_fit() -> None:
    content: dict[str, Any] = dict.fromkeys(
        ("study", "title", "command", "grid", "baseline", "created", "storage"), "x"
    )
    content |= {"overrides": [], "rows": [], "timing_config": {}, "cells": [{"row": 1}]}
    assert misfit(content, GRID) == "'cells.0.row' is of another type"
    assert misfit({**content, "cells": [], "baseline": True}, GRID) == "'baseline' is of another type"
    words = {"status": "finished", "degenerate": {"spread_perturbed": "x"}}
    assert misfit(words, RECORD) == "'degenerate.spread_perturbed' is of another type"
    for large in ({"environment": {"threads": 2**63}}, {"cost": {"parameters": -(2**70)}}, {"seed": 2**70}):
        assert "larger than any such number" in misfit({"status": "finished", **large}, RECORD)
    assert misfit({"status": "finished", "cost": {"parameters": 1e308}}, RECORD)
    for moment in ("../../etc", "", "2026-01-01T00:00:00", "1969-12-31T23:59:59+00:00", 0):
        assert misfit({"status": "finished", "ended": moment}, RECORD) == "'ended' is no time"
    assert not misfit({"status": "finished", "ended": "2026-01-01T00:00:00+00:00", "started": None}, RECORD)
    assert misfit({"status": "../../etc"}, RECORD) == "'status' is none of diverged, failed, finished, killed, pruned"


def test_a_record_may_lack_all_but_its_status(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that says finished and has no loss is told as failed, and run again."""
    (run,) = (results / "runs").glob("mhc-*")
    for status in ("failed", "killed", "diverged", "finished"):
        (run / "record.json").write_text(json.dumps({"status": status, "ended": None, "seconds": None}))
        for command in (["status", "g"], ["runs"], ["export", "g", "--format", "md"]):
            check(cli.main([*command, "--results", str(results)]), capsys.readouterr().err, f"{status}: {command[0]}")
    record = RunFolder(run).record()
    assert record is not None
    assert record["status"] == "failed"
    assert not RunFolder(run).ended()
