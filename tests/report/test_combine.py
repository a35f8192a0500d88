"""Another baseline, and several studies in one table."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from mhc_lab.config import compose
from mhc_lab.config.compose import to_dict
from mhc_lab.errors import LabError
from mhc_lab.report import export
from mhc_lab.report.combine import load_all
from mhc_lab.report.summary import summarize

BASE = [2.50, 2.52, 2.49, 2.51, 2.53]


def configure(study: Any, row: str, *overrides: str) -> None:
    """Give the runs of a row their config.yaml."""
    for cell in study.spec["cells"]:
        if cell["row"] == row:
            config = compose([*overrides, f"seed={cell['seed']}"])
            file = study.results / "runs" / cell["run_id"] / "config.yaml"
            file.write_text(yaml.safe_dump(to_dict(config)))


def shifted(by: float) -> list[float]:
    return [loss + by for loss in BASE]


@pytest.fixture
def two(make_study: Callable[[str], Any]) -> tuple[Any, Any]:
    """Two studies that share the runs of their baseline and control arm; both have a row `mhc`, of other settings."""
    first, second = map(make_study, ("one", "two"))
    for study, t_max in ((first, 20), (second, 5)):
        study.row("identity", BASE, streams=1).row("control", shifted(0.02), streams=1, variant="identity")
        configure(study, "identity", "residual=identity")
        configure(study, "control", "residual=identity", "control=true")
        study.row("mhc", [])
        for seed, loss in enumerate(shifted(-0.001 * t_max - 0.01)):
            run_id = f"mhc{t_max}-{seed}"
            study.spec["cells"].append({"row": "mhc", "seed": seed, "run_id": run_id})
            study.record(run_id, "mhc", seed, loss)
        configure(study, "mhc", "residual=mhc", f"residual.t_max={t_max}")
        study.save(timing={"identity": 1.0, "control": 1.0, "mhc": 1.0 + t_max / 20})
    return first, second


def test_rows_of_two_studies_stand_in_one_table(two: tuple[Any, Any]) -> None:
    study = load_all(two[0].results, ["one", "two"])
    assert [row["row"] for row in study.rows] == ["identity", "control", "mhc", "two.mhc"]
    assert len(study.cells) == 4 * 5
    frame = summarize(study).frame.set_index("row")
    assert frame["loss_gap"].round(6).to_dict() == {"identity": 0, "control": 0.02, "mhc": -0.03, "two.mhc": -0.015}
    assert frame["ms_ratio"].to_dict() == {"identity": 1.0, "control": 1.0, "mhc": 2.0, "two.mhc": 1.25}
    assert study.folder == two[0].results / "one+two"


def test_their_export_lies_in_a_folder_of_its_own(two: tuple[Any, Any]) -> None:
    done = export(two[0].results, ["one", "two"], ["md"])
    assert done.paths[0] == two[0].results / "one+two" / "table.md"
    assert "| two.mhc |" in done.paths[0].read_text()


def test_seeds_of_one_row_add_up(make_study: Callable[[str], Any]) -> None:
    first, second = map(make_study, ("one", "two"))
    for study, seeds in ((first, (0, 1, 2)), (second, (2, 3, 4))):
        for row, by in (("identity", 0.0), ("mhc", -0.05)):
            study.row(row, [])
            for seed in seeds:
                study.cell(row, seed, BASE[seed] + by)
            configure(study, row, f"residual={row}")
        study.save()
    study = load_all(first.results, ["one", "two"])
    assert list(study.row_cells("mhc")["seed"]) == [0, 1, 2, 3, 4]
    assert summarize(study).frame.set_index("row").loc["mhc", "seeds"] == 5


def test_studies_that_differ_are_refused_with_what_differs(two: tuple[Any, Any]) -> None:
    configure(two[1], "identity", "residual=identity")
    for cell in two[1].spec["cells"]:
        if cell["row"] == "identity":
            cell["run_id"] = f"longer-{cell['seed']}"
            two[1].record(cell["run_id"], "identity", cell["seed"], 2.4)
    configure(two[1], "identity", "residual=identity", "trainer.max_steps=999")
    two[1].save()
    words = "'one' and 'two' cannot stand in one table: .* 'identity' differ in trainer.max_steps: 300 and 999"
    with pytest.raises(LabError, match=words):
        load_all(two[0].results, ["one", "two"])


def test_studies_of_other_baselines_want_one_named(two: tuple[Any, Any]) -> None:
    two[1].spec["baseline"] = "mhc"
    for row in two[1].spec["rows"]:
        row["baseline"] = None
    two[1].save()
    with pytest.raises(LabError, match=r"'one' is measured from 'identity', 'two' from 'mhc': .* --baseline"):
        load_all(two[0].results, ["one", "two"])
    assert load_all(two[0].results, ["one", "two"], "identity").baseline == "identity"


def test_another_baseline(two: tuple[Any, Any]) -> None:
    study = load_all(two[0].results, ["one"], "mhc")
    summary = summarize(study)
    frame = summary.frame.set_index("row")
    assert frame["loss_gap"].round(6).to_dict() == {"identity": 0.03, "control": 0.05, "mhc": 0}
    assert set(frame["baseline"]) == {"mhc"}
    assert frame["ms_ratio"].to_dict() == {"identity": 0.5, "control": 0.5, "mhc": 1.0}
    # What initialisation does is still read off the control arm and the design that it repeats.
    assert frame.loc["control", "note"] == "control arm: identity with another initialisation and data order"
    assert summary.noise_floors == {"mhc": pytest.approx(0.02)}


def test_each_size_has_its_own_baseline(study: Any) -> None:
    study.row("identity", BASE).row("mhc", shifted(-0.05)).row("control", shifted(0.01))
    study.row("small", shifted(0.5), variant="identity", baseline="small")
    study.row("small_mhc", shifted(0.47), variant="mhc", baseline="small")
    loaded = load_all(study.save(), ["demo"])
    summary = summarize(loaded)
    gaps = summary.frame.set_index("row")["loss_gap"].round(6).to_dict()
    assert gaps == {"identity": 0, "mhc": -0.05, "control": 0.01, "small": 0, "small_mhc": -0.03}
    assert summary.noise_floors == {"identity": pytest.approx(0.01)}
    text = export(study.results, "demo", ["md"]).paths[0].read_text()
    assert "| row | against |" in text
    assert load_all(study.results, ["demo"], "small_mhc").baseline_of("mhc") == "identity"


def test_a_cell_that_one_study_lost_is_taken_from_the_other(make_study: Callable[[str], Any]) -> None:
    first, second = map(make_study, ("one", "two"))
    for study, loss in ((first, None), (second, 2.4)):
        study.row("identity", BASE)
        study.row("mhc", [])
        study.spec["cells"].append({"row": "mhc", "seed": 0, "run_id": f"mhc-{study.name}"})
        state = {} if loss else {"status": "failed", "reason": "out of memory"}
        study.record(f"mhc-{study.name}", "mhc", 0, loss, **state)
        configure(study, "identity", "residual=identity")
        configure(study, "mhc", "residual=mhc")
        study.save()
    for order in (["one", "two"], ["two", "one"]):
        cells = load_all(first.results, order).row_cells("mhc")
        assert list(cells["run_id"]) == ["mhc-two"]


def test_rows_that_have_not_run_are_told_apart_by_what_they_override(make_study: Callable[[str], Any]) -> None:
    first, second = map(make_study, ("one", "two"))
    for study in (first, second):
        study.row("identity", BASE)
        configure(study, "identity", "residual=identity")
    first.row("mhc", [None] * 5)
    second.row("mhc", [])
    second.spec["rows"][-1]["overrides"] = ["residual=mhc", "residual.streams=2"]
    for seed, loss in enumerate(shifted(-0.1)):
        second.spec["cells"].append({"row": "mhc", "seed": seed, "run_id": f"two-{seed}"})
        second.record(f"two-{seed}", "mhc", seed, loss)
    configure(second, "mhc", "residual=mhc", "residual.streams=2")
    first.save()
    second.save()
    study = load_all(first.results, ["one", "two"])
    assert [row["row"] for row in study.rows] == ["identity", "mhc", "two.mhc"]
    assert set(study.row_cells("mhc")["status"]) == {"not run"}


def test_a_third_study_joins_the_row_that_is_its_own(two: tuple[Any, Any], make_study: Callable[[str], Any]) -> None:
    third = make_study("three")
    third.spec["rows"] = two[1].spec["rows"]
    third.spec["cells"] = two[1].spec["cells"]
    third.save()
    study = load_all(third.results, ["one", "two", "three"])
    assert [row["row"] for row in study.rows] == ["identity", "control", "mhc", "two.mhc"]


def test_only_rows_whose_baseline_changes_lose_the_papers_gap(study: Any) -> None:
    study.row("identity", BASE).row("mhc", shifted(-0.05), paper=-0.02)
    study.row("small", shifted(0.5), variant="identity", baseline="small")
    study.row("small_mhc", shifted(0.47), variant="mhc", baseline="small", paper=-0.03)
    loaded = load_all(study.save(), ["demo"], "mhc")
    assert {row["row"]: row["paper_loss_gap"] for row in loaded.rows} == {
        "identity": None, "mhc": None, "small": None, "small_mhc": -0.03
    }  # fmt: skip


@pytest.mark.parametrize("name", ["demo/", "./demo", "../results/demo"])
def test_a_study_is_named_not_pointed_at(full_study: Path, name: str) -> None:
    with pytest.raises(LabError, match="no study"):
        load_all(full_study, ["demo", name])
