"""Run folders -> one line a cell."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.errors import LabError
from mhc_lab.report import read_study
from mhc_lab.report.frame import NUMBERS, load


def test_one_line_a_cell_in_the_order_of_the_study(full_study: Path) -> None:
    frame = read_study(full_study, "demo")
    assert len(frame) == 30
    assert list(frame["row"].unique()) == ["identity", "control", "mhc", "identity_hc", "mhc_res_only", "hc"]
    cell = frame[(frame["row"] == "mhc") & (frame["seed"] == 2)].iloc[0]
    assert cell["run_id"] == "mhc-000000000002"
    assert (cell["status"], cell["h_res"], cell["streams"]) == ("finished", "dynamic", 4)
    assert cell["val_loss"] == pytest.approx(2.40)
    assert (cell["parameters"], cell["device"], cell["code_fingerprint"]) == (1234567, "cpu", "abc123")
    assert frame[list(NUMBERS)].dtypes.eq("float64").all()


def test_cells_that_did_not_finish_stay_in(full_study: Path) -> None:
    hc = read_study(full_study, "demo").query("row == 'hc'").set_index("seed")
    assert list(hc["status"]) == ["finished"] * 3 + ["failed", "diverged"]
    assert hc.loc[3, "reason"] == "out of memory\nin the backward pass"
    assert hc.loc[[3, 4], "val_loss"].isna().all()


def test_cell_without_a_record_is_not_run(study: Any) -> None:
    frame = read_study(study.row("identity", [2.5, None]).save(), "demo")
    assert list(frame["status"]) == ["finished", "not run"]


def test_unknown_study_names_the_nearest(full_study: Path) -> None:
    with pytest.raises(LabError, match="did you mean 'demo'"):
        read_study(full_study, "dmo")
    with pytest.raises(LabError, match="no study 'demo'"):
        read_study(full_study / "nowhere", "demo")


@pytest.mark.parametrize(
    ("content", "words"),
    [("{", "is damaged"), ("[]", "is damaged"), ("{}", "is damaged"), ('{"status": "finished", "metrics": {}}', None)],
)
def test_damaged_records_are_named_or_count_as_failed(study: Any, content: str, words: str | None) -> None:
    results = study.row("identity", [2.5, 2.6]).save()
    record = results / "runs" / study.spec["cells"][1]["run_id"] / "record.json"
    record.write_text(content)
    if words:
        with pytest.raises(LabError, match=f"record.json: {words}"):
            read_study(results, "demo")
    else:
        frame = read_study(results, "demo")
        assert list(frame["status"]) == ["finished", "failed"]
        assert "run it again" in frame["reason"].iloc[1]


def test_a_study_of_an_earlier_version_says_what_to_do(study: Any) -> None:
    results = study.row("identity", [2.5, 2.6]).save()
    for row in study.spec["rows"]:
        del row["baseline"]
    (results / "demo" / "study.json").write_text(json.dumps(study.spec))
    with pytest.raises(LabError, match="earlier mhc-lab: repeat its command, mhc-lab ablate demo --keep"):
        read_study(results, "demo")


def test_a_timing_pass_of_an_earlier_version_counts_for_nothing(study: Any) -> None:
    results = study.row("identity", [2.5, 2.6]).save(timing={"identity": 1.0})
    assert load(results, "demo").time_ratio("identity") == 1.0
    timing = {"rows": {"identity": {"ms_per_step": 10.0, "ms_ratio": 1.0}}}
    (results / "demo" / "timing.json").write_text(json.dumps(timing))
    assert load(results, "demo").timing is None


def test_study_without_a_finished_run(study: Any) -> None:
    results = study.row("identity", [None, None]).row("mhc", [None], status="failed", reason="died").save()
    with pytest.raises(LabError, match=r"no finished run \(2 not run, 1 failed\), so there is nothing to compare"):
        read_study(results, "demo")


def test_a_thousand_folders_take_under_a_second(study: Any) -> None:
    for i in range(100):
        study.row(f"row{i}", [2.5 + seed / 100 for seed in range(10)])
    study.spec["baseline"] = "row0"
    results = study.save()
    start = time.process_time()
    assert len(read_study(results, "demo")) == 1000
    assert time.process_time() - start < 1.0


def test_export_does_not_import_torch(full_study: Path) -> None:
    code = (
        "import sys, pathlib; from mhc_lab import report; results = pathlib.Path(sys.argv[1]);"
        "report.export(results, 'demo'); report.print_table(results, 'demo');"
        "loaded = {'torch', 'lightning', 'mlflow', 'optuna'} & set(sys.modules); assert not loaded, loaded"
    )
    subprocess.run([sys.executable, "-c", code, str(full_study)], check=True, capture_output=True, timeout=120)
