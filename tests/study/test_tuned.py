"""`ablate --tuned`: each row takes what a sweep found best for it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from mhc_lab.errors import LabError
from mhc_lab.study.spec import Tuned, load_grid

BEST = {"identity": 0.004, "mhc": 0.002, "hc": 0.001}
RATES = Tuned("learning_rate", "residual", {name: {"optim.learning_rate": BEST[name]} for name in BEST}, (0, 1, 2))


def grid(tmp_path: Path, rows: dict[str, list[str]], *shared: str) -> str:
    content = {
        "baseline": "identity",
        "seeds": [0, 1],
        "overrides": list(shared),
        "rows": {name: {"overrides": overrides} for name, overrides in rows.items()},
    }
    file = tmp_path / "grid.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(file)


def rates(file: str, tuned: Tuned | None = RATES) -> dict[str, float]:
    loaded = load_grid(file, tuned=tuned)
    return {row.name: row.config.optim.learning_rate for row in loaded.rows}


def test_each_row_takes_the_rate_of_its_own_variant(tmp_path: Path) -> None:
    rows = {
        "identity": ["residual=identity"],
        "hc_res": ["residual=hc", "residual.h_pre=fixed"],
        "mhc": ["residual=mhc"],
        "control": ["residual=identity", "control=true"],
    }
    file = grid(tmp_path, rows)
    assert rates(file) == {"identity": 0.004, "hc_res": 0.001, "mhc": 0.002, "control": 0.004}
    assert set(rates(file, None).values()) == {0.003}
    loaded, plain = load_grid(file, tuned=RATES), load_grid(file)
    assert loaded.row("hc_res").overrides == ("optim.learning_rate=0.001", "residual=hc", "residual.h_pre=fixed")
    assert {cell.run_id for cell in loaded.cells}.isdisjoint({cell.run_id for cell in plain.cells})


def test_a_rows_own_key_wins_and_a_shared_option_counts(tmp_path: Path) -> None:
    rows = {"identity": ["residual=identity"], "mine": ["optim.learning_rate=0.01"], "shared": []}
    file = grid(tmp_path, rows, "residual=hc")
    assert rates(file) == {"identity": 0.004, "mine": 0.01, "shared": 0.001}
    origins = [row.tuned["overrides"] for row in load_grid(file, tuned=RATES).rows]
    assert origins == [["optim.learning_rate=0.004"], [], ["optim.learning_rate=0.001"]]


def test_without_a_word_on_the_group_its_default_option_counts(tmp_path: Path) -> None:
    assert rates(grid(tmp_path, {"identity": ["residual=identity"], "plain": []}))["plain"] == 0.002  # residual: mhc


def test_a_setting_can_be_what_is_tuned_apart(tmp_path: Path) -> None:
    best = {4: {"optim.learning_rate": 0.5}, 2: {"optim.learning_rate": 0.25}}
    by_streams = Tuned("rates", "residual.streams", best, (0,))
    rows = {"identity": ["residual=identity"], "two": ["residual=mhc", "residual.streams=2"]}
    assert rates(grid(tmp_path, rows), by_streams) == {"identity": 0.5, "two": 0.25}


def test_a_row_that_the_sweep_lacks_is_named(tmp_path: Path) -> None:
    file = grid(tmp_path, {"identity": ["residual=identity"], "turn": ["residual=orthogonal"]})
    with pytest.raises(LabError, match=r"row 'turn': the sweep 'learning_rate' has no .* residual=orthogonal .*leave"):
        rates(file)


def test_what_does_not_fit_a_row_is_told_with_its_sweep(tmp_path: Path) -> None:
    wrong = Tuned("rates", "residual", {"identity": {"residual.t_max": 3}}, (0,))
    with pytest.raises(LabError, match=r"row 'identity', tuned by 'rates': .*t_max"):
        rates(grid(tmp_path, {"identity": ["residual=identity"]}), wrong)
