from __future__ import annotations

from pathlib import Path

import pytest

from mhc_lab.study.advice import advice
from mhc_lab.study.spec import load_grid

GRID = """
title: Variants on {data}
baseline: identity
seeds: [0, 1, 2]
rows:
  identity: {overrides: [residual=identity]}
  mhc: {overrides: [residual=mhc]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "g.yaml").write_text(GRID)
    return tmp_path / "g.yaml"


def test_nothing_is_said_of_a_sound_grid(file: Path) -> None:
    assert advice(load_grid(str(file))) == []


@pytest.mark.parametrize(
    ("seeds", "words"), [([5], "the only seed is 5: intervals"), ([0, 1], "the seeds are 0, 1: intervals")]
)
def test_few_seeds(seeds: list[int], words: str, file: Path) -> None:
    (line,) = advice(load_grid(str(file), seeds))
    assert line.startswith(words)
    assert line.endswith("--seeds 0-4 gives five")


def test_rows_that_are_one_and_rows_of_another_length(file: Path) -> None:
    file.write_text(
        f"{GRID}  again: {{overrides: [residual=mhc]}}\n"
        "  longer: {overrides: [residual=mhc, trainer.max_steps=900]}\n"
    )
    same, longer = advice(load_grid(str(file)))
    assert same == "rows mhc, again come to the same settings: they share their runs"
    assert longer == "row longer has trainer.max_steps=900, its baseline identity 300: not the same task"


def test_a_title_follows_the_data_or_the_command(file: Path, tmp_path: Path) -> None:
    (tmp_path / "kjv.txt").write_text("In the beginning " * 5000)
    assert load_grid(str(file)).title == "Variants on Python's standard library"
    texts = ["data=text", f"data.files={tmp_path}/kjv.txt"]
    assert load_grid(str(file), None, texts).title == "Variants on kjv.txt"
    assert load_grid(str(file), None, ["data=synthetic"]).title.startswith("Variants on the task ")
    assert load_grid(str(file), title="Mine: {data}").title == "Mine: {data}"
