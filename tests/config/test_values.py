"""Values are read by the type of their field, and nothing in them is guessed or filled in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from mhc_lab import cli
from mhc_lab.config import compose
from mhc_lab.config.compose import from_dict, to_dict
from mhc_lab.config.values import parse
from mhc_lab.errors import LabError


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("seed", "010", 10),
        ("seed", " 7 ", 7),
        ("trainer.max_steps", "1e3", 1000),
        ("trainer.max_steps", "1_000", 1000),
        ("trainer.max_steps", "+20", 20),
        ("optim.learning_rate", "1e-3", 0.001),
        ("optim.learning_rate", "010", 10.0),
        ("optim.learning_rate", ".5", 0.5),
        ("model.tie_embeddings", "on", True),
        ("model.tie_embeddings", "No", False),
        ("control", "1", True),
        ("residual.recompute", "off", "off"),
        ("residual.recompute", "010", "010"),
        ("residual.plugin", "null", "null"),
        ("residual.plugin", "1e3", "1e3"),
        ("tracking.experiment", "on", "on"),
        ("tracking.experiment", "2026-01-01", "2026-01-01"),
        ("tracking.backend", "none", "none"),
        ("residual.h_post_home", "null", None),
        ("residual.h_post_home", "none", None),
        ("residual.h_post_home", "1", 1.0),
        ("model.vocab_size", "", None),
        ("data.files", "a.txt", ["a.txt"]),
        ("data.files", "corpus/*.txt", ["corpus/*.txt"]),
        ("data.files", "[ab]*.txt", ["[ab]*.txt"]),
        ("data.files", "a.txt,b.txt", ["a.txt", "b.txt"]),
        ("data.files", "[a.txt, 'b, c.txt']", ["a.txt", "b, c.txt"]),
        ("data.files", "[010, on, null, 1e3]", ["010", "on", "null", "1e3"]),
        ("data.files", "[]", []),
        ("launcher.devices", "0", [0]),
        ("launcher.devices", "0,1", [0, 1]),
        ("launcher.devices", "[0, 1]", [0, 1]),
        ("residual.constraints", "doubly_stochastic", ["doubly_stochastic"]),
    ],
)
def test_read_by_type(key: str, text: str, value: Any) -> None:
    found = parse(key, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("seed", "0x10", "must be a whole number"),
        ("seed", "0o10", "must be a whole number"),
        ("seed", "1.5", "must be a whole number"),
        ("seed", "true", "must be a whole number"),
        ("seed", "1e-3", "must be a whole number"),
        ("seed", "1e999999999", "must be a whole number"),
        ("seed", "nan", "must be a whole number"),
        ("seed", "9" * 5000, "at most 40 digits"),
        ("optim.learning_rate", "fast", "must be a number"),
        ("control", "maybe", "must be true or false"),
        ("residual.h_res", "off", "dynamic, static, fixed (what tables call off is fixed)"),
        ("residual.sinkhorn", "Plain", "choose one of plain, log"),
        ("launcher.devices", "all", "launcher.devices=all: must be a whole number"),
        ("launcher.devices", "[0, [1]]", "a list of words"),
        ("data.files", "[" * 3000 + "]" * 3000, "a list"),
        ("data.files", "${oc.env:HOME}/x", "nothing is filled in"),
        ("tracking.experiment", "${seed}", "nothing is filled in"),
        ("tracking.experiment", "a\nb", "cannot be printed"),
        ("tracking.experiment", "\udce9", "cannot be printed"),
        ("residual.plugin", "x" * 200_000, "longer than"),
    ],
)
def test_what_is_no_value_is_one_short_line(key: str, text: str, says: str) -> None:
    with pytest.raises(LabError) as caught:
        parse(key, text)
    line = str(caught.value)
    assert says in line
    assert len(line) < 300
    assert line.isprintable()


@pytest.mark.parametrize(
    "override",
    ["trainer.val_every=" + "{a: " * 500, "seed=" + "[" * 4000, "x" * 9000, "a.b=\0", "model=\udce9", "data.files=???"],
)
def test_hostile_overrides_are_one_line(override: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--dry-run", override]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert len(line) < 400


def test_a_files_own_words_are_read_by_type(tmp_path: Path) -> None:
    (tmp_path / "residual").mkdir()
    file = tmp_path / "residual" / "mine.yaml"
    file.write_text("variant: mhc\nrecompute: off\nt_max: 010\nconstraints: [doubly_stochastic]\nh_post_home: null\n")
    residual = compose(["residual=mine"], config_dir=tmp_path).residual
    assert (residual.recompute, residual.t_max, residual.h_post_home) == ("off", 10, None)
    assert residual.constraints == ["doubly_stochastic"]
    file.write_text("variant: mhc\nh_res: off\n")
    with pytest.raises(LabError, match=r"mine\.yaml: residual\.h_res=off: choose one of"):
        compose(["residual=mine"], config_dir=tmp_path)


def test_a_runs_config_comes_back_as_it_was_written() -> None:
    config = compose(["residual=mhc", "residual.h_post_home=1.5", "tracking.experiment=on"])
    assert from_dict(yaml.safe_load(yaml.safe_dump(to_dict(config))), "f") == config


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"model": {"dim": "64"}}, "model.dim: '64' is not a whole number"),
        ({"model": {"dim": True}}, "model.dim: True is not a whole number"),
        ({"model": 3}, "model: must be a mapping"),
        ({"data": {"files": "a"}}, "data.files: 'a' is not a list, each of it text"),
        ({"residual": {"h_res": False}}, "residual.h_res: False is not one of dynamic, static, fixed"),
        ({"model": {"dim": 0}}, "model.dim=0: must be at least 1"),
        ({"modl": {}}, "no key or group 'modl'"),
        ({"model": {"dimm": 1}}, "no key 'dimm'"),
        ({3: 4}, "no key or group '3'"),
    ],
)
def test_a_runs_config_of_other_types_is_refused(content: Any, says: str) -> None:
    with pytest.raises(LabError) as caught:
        from_dict(content, "runs/x/config.yaml")
    assert str(caught.value).startswith("runs/x/config.yaml: ")
    assert says in str(caught.value)


def test_a_runs_config_is_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_SECRET", "s3cr3t")
    config = from_dict({"data": {"files": ["${oc.env:MY_SECRET}"]}, "tracking": {"uri": "???"}}, "f")
    assert config.data.files == ["${oc.env:MY_SECRET}"]
    assert config.tracking.uri == "???"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: " + "[" * 3000, "nested too deeply"),
        ("a: " + "x" * 1_000_001, "larger than 1000 kB"),
        ("a: 2026-99-99", "cannot be read"),
        ("a: [1\nb: 2", "line 2"),
    ],
)
def test_hostile_files_are_one_line(tmp_path: Path, text: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(text)
    assert cli.main(["ablate", str(file), "--dry-run"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line
