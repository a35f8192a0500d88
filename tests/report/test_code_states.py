"""Runs of one state of the code are told from runs of several, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mhc_lab.errors import LabError
from mhc_lab.files import read_json
from mhc_lab.identity.code import Executed, fingerprint, stamp
from mhc_lab.report.code_states import code_states
from mhc_lab.report.frame import load
from mhc_lab.report.tables import export
from mhc_lab.run_folder import RunFolder, write_json

KINDS = {"identity": (), "mhc": ("doubly_stochastic",)}
D12D148 = "7297d736b0b2"


def recorded(results: Path, run_id: str, **changes: str) -> None:
    """A run's record and code as this package writes them, with other digests for some definitions."""
    folder = RunFolder(results / "runs" / run_id)
    record = read_json(folder.record_file) or {}
    variant = record["variant"]
    content = stamp(Executed(variant, KINDS[variant], "synthetic", "cpu"))
    content["definitions"] |= {key: changes[name] for name in changes for key in content["definitions"] if name in key}
    write_json(folder.code_file, content)
    write_json(folder.record_file, record | {"code_fingerprint": fingerprint(content["definitions"])})


@pytest.fixture
def results(study: Any) -> Path:
    study.row("identity", [2.5, 2.52]).row("mhc", [2.4, 2.41])
    saved: Path = study.save()
    for folder in sorted((saved / "runs").iterdir()):
        recorded(saved, folder.name)
    return saved


def states(results: Path) -> list[int]:
    return sorted(map(len, code_states(load(results, "demo")).values()))


def test_rows_execute_different_parts_of_one_state(results: Path) -> None:
    assert states(results) == [4]
    assert export(results, "demo", ["csv"]).warnings == []


def test_a_definition_that_differs_within_a_row_or_between_rows(results: Path) -> None:
    recorded(results, "mhc-000000000001", ConstrainedConnection="0" * 8)
    assert states(results) == [1, 3]
    with pytest.raises(LabError, match=r"differ in code: [0-9a-f]{12} \(3 runs\), [0-9a-f]{12} \(1 run\)"):
        export(results, "demo", ["csv"])
    recorded(results, "mhc-000000000001", ResidualStack="0" * 8)
    recorded(results, "mhc-000000000000", ResidualStack="0" * 8)
    assert states(results) == [2, 2]


def test_records_of_a_known_package_are_of_this_state(results: Path) -> None:
    folder = RunFolder(results / "runs" / "identity-000000000000")
    folder.code_file.unlink()
    write_json(folder.record_file, (folder.record() or {}) | {"code_fingerprint": D12D148})
    assert states(results) == [4]
    write_json(folder.record_file, (folder.record() or {}) | {"code_fingerprint": "unknown"})
    assert states(results) == [1, 3]
