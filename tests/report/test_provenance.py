"""Where a table comes from."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.errors import LabError
from mhc_lab.report import export
from mhc_lab.report.provenance import git_state


def provenance_of(results: Path) -> dict[str, Any]:
    export(results, "demo", ["csv"], command="mhc-lab export demo")
    content: dict[str, Any] = json.loads((results / "demo" / "provenance.json").read_text())
    return content


def test_content(full_study: Path) -> None:
    content = provenance_of(full_study)
    assert (content["command"], content["export_command"]) == ("mhc-lab ablate demo", "mhc-lab export demo")
    assert content["corpus_fingerprints"] == ["c0ffee"]
    assert content["code_fingerprints"] == ["abc123"]
    assert content["runs"]["mhc"] == {str(seed): f"mhc-{seed:012x}" for seed in range(5)}
    assert content["machine"]["devices"] == ["cpu"]
    assert content["machine"]["cores"] >= 1
    assert content["versions"]["numpy"]
    assert content["environments"][0]["runs"] == 29
    assert content["environments"][0]["threads"] == 1
    assert content["mixtures"] == {}


def test_mixture_is_refused_or_listed_and_warned_of(study: Any) -> None:
    study.row("identity", [2.5, 2.52, 2.49]).row("mhc", [2.4, 2.41, 2.39])
    study.cell("mhc", 1, 2.41, code_fingerprint="other", environment__threads=None)
    results = study.save()
    with pytest.raises(LabError, match=r"differ in code: abc123 \(5 runs\), other \(1 run\).*--allow-mixed"):
        export(results, "demo", ["csv"])
    assert not (results / "demo" / "table.csv").exists()
    done = export(results, "demo", ["md"], allow_mixed=True)
    content = json.loads((results / "demo" / "provenance.json").read_text())
    assert content["mixtures"]["code"]["other"] == ["mhc-000000000001"]
    assert len(content["mixtures"]["code"]["abc123"]) == 5
    assert [environment["threads"] for environment in content["environments"]] == [1, None]
    warning = "the runs differ in code: abc123 (5 runs), other (1 run); gaps across them are not fair comparisons"
    assert done.warnings == [warning]
    assert f"> **Warning:** {warning}." in (results / "demo" / "table.md").read_text()


def test_another_torch_or_device_is_warned_of(study: Any) -> None:
    study.row("identity", [2.5, 2.52, 2.49]).row("mhc", [2.4, 2.41, 2.39], environment__torch="2.14.0")
    done = export(study.save(), "demo", ["csv"])
    assert "the runs differ in torch: 2.13.0 (3 runs), 2.14.0 (3 runs)" in done.warnings[0]


def test_git_state(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ("-c", "user.name=t", "-c", "user.email=t@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    assert git_state(tmp_path) is None
    git("init")
    assert git_state(tmp_path) is None
    package = tmp_path / "src"
    package.mkdir()
    (package / "a.py").write_text("a = 1\n")
    git("add", ".")
    git("commit", "-m", "first")
    clean = git_state(package)
    assert clean is not None
    assert len(clean["commit"]) == 40
    assert clean["dirty"] is False
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.md").write_text("a table")
    assert git_state(package) == clean
    (package / "a.py").write_text("a = 2\n")
    assert git_state(package) == clean | {"dirty": True}
