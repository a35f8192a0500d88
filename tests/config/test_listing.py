"""`mhc-lab list`: everything that can be chosen is there, with words, and fits a terminal."""

from __future__ import annotations

import json

import pytest

from mhc_lab import cli
from mhc_lab.config.compose import check_key
from mhc_lab.config.listing import kinds, settings


def test_every_setting_has_words_and_is_a_key() -> None:
    for entry in settings():
        check_key(entry["name"])
        assert entry["words"], entry["name"]


@pytest.mark.parametrize("what", [[], *([kind] for kind in kinds()), ["residual"], ["trainer"]])
def test_lists_fit_80_columns(what: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", *what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) > 1
    assert max(map(len, lines)) < 80


def test_json_holds_all_kinds(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == set(kinds())
    assert {"name", "default", "values", "words"} == set(found["settings"][0])
    assert "demo" in [entry["name"] for entry in found["grids"]]


def test_what_cannot_be_listed_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "grid"]) == 2
    assert capsys.readouterr().err == "error: list grid: did you mean 'grids'?\n"
