from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mhc_lab.errors import LabError
from mhc_lab.study.spec import load_grid

GOOD = {
    "title": "Two rows",
    "baseline": "identity",
    "seeds": [0, 1],
    "overrides": ["data=synthetic", "residual.streams=2"],
    "rows": {
        "identity": {"overrides": ["residual=identity"], "paper_loss_gap": 0.0},
        "mhc": {"overrides": ["residual=mhc"]},
        "mhc_wide": {"overrides": ["residual=mhc", "residual.streams=8"], "paper_loss_gap": -0.02},
        "control": {"overrides": ["residual=identity", "control=true"]},
    },
}


def _write(folder: Path, **changes: object) -> str:
    content = {key: value for key, value in {**GOOD, **changes}.items() if value != "absent"}
    file = folder / "two.yaml"
    file.write_text(yaml.safe_dump(content, sort_keys=False))
    return str(file)


def test_a_grid_is_rows_times_seeds_in_the_order_of_the_file(tmp_path):
    grid = load_grid(_write(tmp_path))
    assert [row.name for row in grid.rows] == ["identity", "mhc", "mhc_wide", "control"]
    assert [(cell.row, cell.seed) for cell in grid.cells][:4] == [
        ("identity", 0),
        ("identity", 1),
        ("mhc", 0),
        ("mhc", 1),
    ]
    assert [cell.config.seed for cell in grid.cells] == [0, 1] * 4
    assert len({cell.run_id for cell in grid.cells}) == 8
    assert (grid.name, grid.title, grid.baseline) == ("two", "Two rows", "identity")
    assert [row.paper_loss_gap for row in grid.rows] == [0.0, None, -0.02, None]


def test_shared_overrides_yield_to_a_rows_own_and_are_dropped_where_a_variant_lacks_them(tmp_path):
    grid = load_grid(_write(tmp_path), [7], ["residual.streams=3", "trainer.max_steps=9"])
    assert grid.row("mhc").config.residual.streams == 3  # the command line wins over the file
    assert grid.row("mhc_wide").config.residual.streams == 8
    assert grid.row("identity").config.residual.streams == 4  # the default: it has no streams
    assert {cell.config.trainer.max_steps for cell in grid.cells} == {9}
    assert grid.seeds == (7,)
    assert grid.cells[0].run_id == load_grid(_write(tmp_path), [7], ["trainer.max_steps=9"]).cells[0].run_id


def test_the_control_arm_is_another_run_than_the_baseline(tmp_path):
    cells = {(cell.row, cell.seed): cell.run_id for cell in load_grid(_write(tmp_path)).cells}
    assert cells["control", 0] != cells["identity", 0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"baseline": "identiy"}, "baseline must name one of the rows; did you mean 'identity'"),
        ({"baseline": "absent"}, "baseline must name one of the rows, for example"),
        ({"baseline": "control"}, "the baseline 'control' cannot be the control arm"),
        ({"rows": {}}, "rows must be a mapping of at least one row"),
        ({"rows": "absent"}, "rows must be a mapping"),
        ({"rows": ["identity"]}, "rows must be a mapping"),
        ({"rows": {"identity": None}}, "row 'identity': must be a mapping"),
        ({"rows": {"identity": {"override": []}}}, "row 'identity': no key 'override'; did you mean 'overrides'"),
        ({"rows": {"identity": {"overrides": "residual=identity"}}}, "must be a list of group=option"),
        ({"rows": {"identity": {"overrides": [{"a": 1}]}}}, "must be a list of group=option"),
        ({"rows": {"identity": {"paper_loss_gap": "big"}}}, "paper_loss_gap must be a finite number, not 'big'"),
        ({"rows": {"identity": {"overrides": ["residual=mch"]}}}, "row 'identity': residual=mch.*did you mean 'mhc'"),
        ({"rows": {"identity": {"overrides": ["residual=identity", "residual.h_pre=fixed"]}}}, "has no h_pre"),
        ({"rows": {"identity": {"overrides": ["seed=3"]}}}, "seed=3: the seeds of a grid are given with --seeds"),
        ({"rows": {True: {}}}, "row True: a row's name is at most 100 letters"),
        ({"rows": {"a b": {}}}, "row 'a b': a row's name is at most 100 letters"),
        ({"rows": {**GOOD["rows"], "b": {"overrides": ["control=true"]}}}, "only one row"),
        ({"seeds": []}, "seeds must be a list of at least one"),
        ({"seeds": "absent"}, "seeds must be a list of at least one"),
        ({"seeds": 5}, r"seeds: 5 must be a list: \[5\] is the one seed 5"),
        ({"seeds": [0, 1, 0]}, "seed 0 is given twice"),
        ({"seeds": [-1]}, "seed -1: seeds are whole numbers from 0"),
        ({"seeds": [True]}, "seed True: seeds are whole numbers from 0"),
        ({"overrides": "trainer.max_steps=3"}, "overrides must be a list"),
        ({"overrides": ["seed=1"]}, "given with --seeds"),
        ({"overrides": ["trainer.max_step=3"]}, "did you mean 'max_steps'"),
        ({"row": {}}, "no key 'row'; did you mean 'rows'"),
    ],
)
def test_a_malformed_grid_is_one_clear_line(tmp_path, changes, words):
    with pytest.raises(LabError, match=words) as error:
        load_grid(_write(tmp_path, **changes))
    assert "\n" not in str(error.value)


def test_bad_seeds_and_overrides_of_the_command_line(tmp_path):
    file = _write(tmp_path)
    with pytest.raises(LabError, match="seed 1 is given twice"):
        load_grid(file, [1, 1])
    with pytest.raises(LabError, match="given with --seeds"):
        load_grid(file, None, ["seed=1"])


def test_an_unknown_grid_names_the_nearest(tmp_path):
    with pytest.raises(LabError, match="no grid 'tabel1'; did you mean 'table1'"):
        load_grid("tabel1")
    with pytest.raises(LabError, match="no such grid file"):
        load_grid("./tabel1.yaml")
    folder = tmp_path / "grid"
    folder.mkdir()
    (folder / "mine.yaml").write_text(Path(_write(tmp_path)).read_text())
    assert load_grid("mine", config_dir=tmp_path).name == "mine"


@pytest.mark.parametrize("name", ["table1", "variants", "demo"])
def test_the_shipped_grids(name):
    grid = load_grid(name)
    assert grid.baseline == "identity"
    assert [row.name for row in grid.rows if row.config.control] == ["control"]
    assert grid.seeds == (0, 1, 2, 3, 4)
    assert len({cell.run_id for cell in grid.cells}) == len(grid.cells)


def test_table1_is_the_papers_and_the_cells_it_leaves_out():
    rows = {row.name: row for row in load_grid("table1").rows}
    gaps = {name: row.paper_loss_gap for name, row in rows.items() if row.paper_loss_gap is not None}
    assert gaps == {"identity": 0.0, "res": -0.022, "res_pre": -0.025, "res_pre_post": -0.027}
    toggles = {
        tuple(
            mode == "dynamic"
            for mode in (row.config.residual.h_res, row.config.residual.h_pre, row.config.residual.h_post)
        )
        for row in rows.values()
        if row.config.residual.variant == "hc"
    }
    assert len(toggles) == 7  # all of the eight but all off, which is the baseline


def test_nothing_heavy_is_imported():
    heavy = "{'torch', 'lightning', 'mlflow', 'optuna'}"
    code = f"import sys, mhc_lab.study.spec, mhc_lab.study.status; print({heavy} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "set()\n"


def test_rows_may_be_measured_from_a_baseline_of_their_own(tmp_path):
    rows = {
        "identity": {"overrides": ["residual=identity"]},
        "mhc": {"overrides": ["residual=mhc"]},
        "small": {"overrides": ["residual=identity", "model.dim=32"], "baseline": "small"},
        "small_mhc": {"overrides": ["residual=mhc", "model.dim=32"], "baseline": "small"},
    }
    grid = load_grid(_write(tmp_path, rows=rows))
    assert [row.baseline for row in grid.rows] == ["identity", "identity", "small", "small"]
    rows["small_mhc"]["baseline"] = "smal"
    with pytest.raises(LabError, match="baseline 'smal' is not a row; did you mean 'small'"):
        load_grid(_write(tmp_path, rows=rows))
    rows["identity"]["baseline"] = "small"
    with pytest.raises(LabError, match="baseline 'identity' names a baseline of its own"):
        load_grid(_write(tmp_path, rows=rows))
    del rows["identity"]["baseline"]
    rows["small_mhc"]["baseline"] = "mhc"
    with pytest.raises(LabError, match="baseline 'mhc' has another baseline itself"):
        load_grid(_write(tmp_path, rows=rows))


def test_each_baseline_has_its_own_control_arm(tmp_path):
    rows = {**GOOD["rows"], "small": {"overrides": ["residual=identity", "model.dim=32"], "baseline": "small"}}
    control = {"overrides": ["residual=identity", "model.dim=32", "control=true"]}
    grid = load_grid(_write(tmp_path, rows={**rows, "small_control": {**control, "baseline": "small"}}))
    assert [row.baseline for row in grid.rows if row.config.control] == ["identity", "small"]
    with pytest.raises(LabError, match="only one row can be the control arm, but control, small_control"):
        load_grid(_write(tmp_path, rows={**rows, "small_control": control}))


def test_a_shared_setting_is_a_mistake_only_where_no_row_reads_it(tmp_path):
    file = tmp_path / "two.yaml"
    rows = "rows: {identity: {overrides: [residual=identity]}, mhc: {overrides: [residual=mhc]}}"
    file.write_text(f"baseline: identity\nseeds: [0]\n{rows}\n")
    grid = load_grid(str(file), shared_overrides=["residual.t_max=5"])
    assert grid.row("mhc").config.residual.t_max == 5
    for shared, says in (
        ("data.files=[a.txt]", r"no row reads data\.files: data\.files needs data=text"),
        ("residual.norm_weight=1", "no key 'norm_weight'"),
        ("optim.min_ratio=0.2", "no row reads optim.min_ratio"),
    ):
        with pytest.raises(LabError, match=says):
            load_grid(str(file), shared_overrides=[shared])


def test_a_grid_has_a_size(tmp_path):
    file = tmp_path / "many.yaml"
    rows = "".join(f"  r{i}: {{overrides: [residual=identity]}}\n" for i in range(1001))
    file.write_text(f"baseline: r0\nseeds: [0]\nrows:\n{rows}")
    with pytest.raises(LabError, match="1001 rows: at most 1000"):
        load_grid(str(file))
