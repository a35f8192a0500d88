"""JSON and Markdown of the benchmarks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.bench import ops_report, report
from mhc_lab.bench.options import Options
from mhc_lab.bench.targets import targets
from mhc_lab.errors import LabError

RUN = {
    "command": "mhc-lab bench ops",
    "date": "2026-11-23T12:00:00+00:00",
    "machine": {"device": "NVIDIA H100 80GB HBM3", "processor": "A CPU", "cores": 16, "threads": 16, "system": "Linux"},
    "backend": "gpu",
    "versions": {"python": "3.12.3", "torch": "2.11.0", "triton": "3.6.0"},
}


def row(**values: Any) -> dict[str, Any]:
    made = {
        "case": "write",
        "direction": "forward",
        "contender": "ours",
        "tokens": 4096,
        "dim": 7168,
        "streams": 4,
        "dtype": "bfloat16",
        "t_max": 20,
        "us": 200.0,
        "us_low": 198.0,
        "us_high": 203.5,
        "bytes": 528_500_000,
        "gb_per_s": 2642.5,
        "copy_gb_per_s": 2800.0,
        "share_of_copy": 0.944,
        "times_ours": 1.0,
        "times_ours_low": 1.0,
        "times_ours_high": 1.0,
        "gate_error": 1e-3,
    }
    return {**made, **values}


def content(*rows: dict[str, Any], notes: list[str] | None = None) -> dict[str, Any]:
    return ops_report.merged(None, list(rows), notes or [], RUN)


def test_a_table_has_our_time_and_the_rivals_ratios() -> None:
    page = ops_report.markdown(
        content(row(), row(contender="liger", times_ours=2.61, us=522.0), notes=["flag_gems: not installed"])
    )
    assert "## Write: H_res x + H_post^T F" in page
    assert "× liger |" in page
    line = next(line for line in page.splitlines() if line.startswith("| forward"))
    assert line == "| forward | 7168 | 4096 | 200 | [198–204] | 528 | 2,642 | 94% | 2.61 |"
    assert "- flag_gems: not installed" in page
    assert "NVIDIA H100 80GB HBM3; A CPU; 16 cores, 16 threads. python 3.12.3, torch 2.11.0" in page
    assert "2,800 GB/s" in page


def test_a_rival_without_a_backward_leaves_its_cell_empty() -> None:
    page = ops_report.markdown(
        content(row(), row(contender="flag_gems", times_ours=1.1), row(direction="backward", us=311.0))
    )
    backward = next(line for line in page.splitlines() if line.startswith("| backward"))
    assert backward.endswith("|  |")


def test_targets_take_the_worst_row_and_say_what_was_not_measured() -> None:
    told = targets(content(row(), row(tokens=8192, share_of_copy=0.88), row(dim=2560, share_of_copy=0.5)))
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in told.splitlines()[2:]}
    write = lines["`write` forward, C = 7168"]
    assert "88% (worst of 2" in write
    assert write.endswith("| no |")
    assert lines["`write` backward"].endswith("| not measured | not measured |")
    told = targets(content(row(case="write_read", direction="backward", contender="liger", times_ours=3.4)))
    assert "3.40 × | yes |" in told


def test_targets_are_for_their_device_alone() -> None:
    other = {**RUN, "machine": {**RUN["machine"], "device": "AMD EPYC"}}  # type: ignore[dict-item]
    assert targets(ops_report.merged(None, [row()], [], other)) == ""
    half = targets(content(row(dtype="float32")))
    assert "| no |" not in half
    assert "| yes |" not in half


def test_appended_rows_replace_those_of_the_same_block() -> None:
    before = content(row(), row(contender="liger", times_ours=9.0), row(case="read", us=50.0), notes=["a"])
    after = ops_report.merged(before, [row(us=190.0)], ["a", "b"], {**RUN, "command": "again"})
    assert [(r["case"], r["contender"], r["us"], r["run"]) for r in after["rows"]] == [
        ("read", "ours", 50.0, 0),
        ("write", "ours", 190.0, 1),
    ]
    assert after["notes"] == ["a", "b"]
    assert [run["command"] for run in after["runs"]] == ["mhc-lab bench ops", "again"]


def test_files_are_whole_and_damage_is_said(tmp_path: Path) -> None:
    paths = report.write(tmp_path / "bench" / "here", "ops", content(row()), "# Page\n\n")
    assert [path.name for path in paths] == ["ops.json", "ops.md"]
    assert json.loads(paths[0].read_text())["rows"][0]["us"] == 200.0
    assert paths[1].read_text() == "# Page\n"
    assert {path.name for path in paths[0].parent.iterdir()} == {"ops.json", "ops.md"}
    assert report.earlier(tmp_path / "nothing.json") is None
    paths[0].write_text("{")
    with pytest.raises(LabError, match="remove it"):
        report.earlier(paths[0])


def test_circumstances_name_machine_and_versions() -> None:
    options = Options("ops", device="cpu", threads=3)
    found = report.circumstances(options)
    assert found["machine"]["threads"] == 3
    assert {"python", "torch"} <= found["versions"].keys()
    assert found["machine"]["device"] in report.describe(found)
    assert report.folder_of(options).parts[:2] == ("results", "bench")


def test_numbers_are_short() -> None:
    assert [report.number(v) for v in (12345.6, 99.94, 1.234, 0.1234)] == ["12,346", "99.9", "1.23", "0.12"]
