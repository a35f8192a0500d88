from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy.exc

from mhc_lab import cli, doctor, tries
from mhc_lab.doctor import Finding, examine
from mhc_lab.ops import backends


def problems(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.level == "problem"]


@pytest.fixture
def versions(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str | None], None]:
    """Pretend that a package has another version, or is not installed."""

    def pretend(name: str, version: str | None) -> None:
        real = importlib.metadata.version

        def fake(asked: str) -> str:
            if asked != name:
                return real(asked)
            if version is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return version

        monkeypatch.setattr(importlib.metadata, "version", fake)

    return pretend


def test_this_installation_is_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--results", str(tmp_path / "results")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all(line.startswith(("ok ", "warning ")) for line in lines)
    for word in (
        "python",
        "torch",
        "cores",
        "can be written",
        "configuration",
        "corpus",
        "tracking",
        "kernels",
        "database",
        "worker",
    ):
        assert any(word in line for line in lines), word
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["2.6.2", "2.6.3", "2.6.3+cpu"])
def test_malicious_releases(version: str, versions: Any) -> None:
    versions("lightning", version)
    (found,) = problems(list(doctor.packages()))
    assert "malicious" in found
    assert "pip install" in found


def test_a_package_that_is_missing_or_too_old(versions: Any) -> None:
    versions("optuna", "4.9.0")
    (found,) = problems(list(doctor.packages()))
    assert "optuna 4.9.0" in found
    assert 'pip install "optuna>=5"' in found
    versions("omegaconf", None)
    assert any("omegaconf is not installed" in text for text in problems(list(doctor.packages())))


def test_a_results_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(["doctor", "--results", str(tmp_path / "file" / "results")]) == 2
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("problem")]
    assert "choose another --results" in line


def test_a_broken_option(tmp_path: Path) -> None:
    (tmp_path / "optim").mkdir()
    (tmp_path / "optim" / "mine.yaml").write_text("learning_rat: 1\n")
    (found,) = problems(list(doctor.configuration(tmp_path)))
    assert "optim=mine" in found


def test_a_check_that_breaks_is_one_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mhc_lab.tries.worker", lambda _: iter([]))
    (tmp_path / "config.yaml").write_text("residual: nothing\n")
    found = problems(examine(tmp_path / "results", tmp_path))
    assert [text.partition(":")[0] for text in found] == ["configuration", "corpus", "tracking"]
    assert all("residual=nothing" in text for text in found)


def test_a_plugin_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = importlib.metadata.EntryPoint("mine", "no_such_module", doctor.ENTRY_POINT_GROUP)
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda **_: (broken,))
    (found,) = problems(list(doctor.plugins()))
    assert "plugin mine" in found
    assert "no_such_module" in found


def test_a_tracking_server_that_is_not_there(tmp_path: Path) -> None:
    (found,) = problems(list(doctor.tracking(tmp_path, None, "http://127.0.0.1:9")))
    assert "http://127.0.0.1:9" in found
    assert "start the server" in found


def test_little_memory_and_disk_are_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "LITTLE_MEMORY", float("inf"))
    monkeypatch.setattr(doctor, "LITTLE_DISK", float("inf"))
    warnings = [finding.text for finding in doctor.machine(tmp_path) if finding.level == "warning"]
    assert ["memory" in warnings[0], "free" in warnings[1]] == [True, True]


def test_a_kernel_that_fails_is_named_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    load = backends._load

    def broken(operation: str, backend: str, function: str) -> Any:
        if (operation, backend) == ("read", "cpu"):
            raise RuntimeError("no such instruction")
        return load(operation, backend, function)

    monkeypatch.setattr(backends, "_load", broken)
    *bad, (works, good) = tries.kernels()
    assert (works, good) == (True, "kernels: 6 operations run and are right (cpu backend)")
    ((works, text),) = bad
    assert not works
    assert text.startswith("kernels: read: ")
    assert "no such instruction" in text
    assert "MHC_LAB_BACKEND=reference" in text
    backends.try_again()


def test_a_database_that_does_not_work_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: Any, **__: Any) -> None:
        raise sqlalchemy.exc.OperationalError("PRAGMA", {}, Exception("database is locked"))

    monkeypatch.setattr("mhc_lab.study.storage.PatientStorage", locked)
    monkeypatch.setattr("mhc_lab.tries.worker", lambda _: iter([]))
    (found,) = problems(examine(tmp_path / "results"))
    assert found.startswith("database: ")
    assert "database is locked" in found
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_does_not_work_says_its_last_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MHC_LAB_BACKEND", "fast")
    ((works, text),) = tries.worker(tmp_path)
    assert not works
    assert text.startswith("worker: error: MHC_LAB_BACKEND=fast")
    assert list(tmp_path.iterdir()) == []
