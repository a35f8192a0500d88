"""What a study knows of kernels before anything is imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mhc_lab import kernel_cache
from mhc_lab.config import compose
from mhc_lab.machine import BACKEND_VARIABLE
from mhc_lab.study import ready


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_cache, "folder", lambda: tmp_path)
    monkeypatch.delenv(BACKEND_VARIABLE, raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(kernel_cache, "_has_numba", lambda: True)


def test_kernels_are_cold_until_one_of_their_form_lies_there(tmp_path: Path) -> None:
    config = compose(["trainer=cpu"])
    assert ready.kernels_are_cold(config)
    (tmp_path / "sequential" / "read").mkdir(parents=True)
    (tmp_path / "sequential" / "read" / "forward.nbi").touch()
    assert not ready.kernels_are_cold(config)
    assert kernel_cache.cold("parallel")


@pytest.mark.parametrize("name", ["reference", "gpu"])
def test_nothing_is_compiled_for_another_backend(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BACKEND_VARIABLE, name)
    assert not kernel_cache.cold()
    assert not ready.kernels_are_cold(compose(["trainer=gpu"]))


def test_the_kernels_of_the_timing_pass_are_compiled_meanwhile_where_it_has_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: object) -> None:
            started.append(command[1:])

        def kill(self) -> None:
            started.append(["killed"])

        def wait(self) -> None: ...

    monkeypatch.setattr(subprocess, "Popen", Process)
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    with ready.timing_kernels(compose(["trainer=cpu"])):
        assert started == [["-m", "mhc_lab.ops.warm_up"]]
    assert started.pop() == ["killed"]
    for overrides in (["trainer=gpu"], ["trainer=cpu"]):
        monkeypatch.setenv("OMP_NUM_THREADS", "1" if overrides == ["trainer=cpu"] else "4")
        with ready.timing_kernels(compose(overrides)):
            assert len(started) == 1


def test_a_study_begins_without_importing_torch() -> None:
    code = (
        "import sys; import mhc_lab.study.engine, mhc_lab.study.sweep; assert not {'torch', 'numba'} & {*sys.modules}"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
