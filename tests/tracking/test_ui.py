from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from mhc_lab.errors import LabError
from mhc_lab.tracking.ui import ui


def test_a_server_has_its_own_pages(results: Path) -> None:
    said: list[str] = []
    ui(results, uri="http://example.invalid:5000", say=said.append)
    assert "http://example.invalid:5000" in said[0]


def test_a_busy_port(results: Path) -> None:
    with socket.socket() as busy:
        busy.bind(("127.0.0.1", 0))
        busy.listen()
        with pytest.raises(LabError, match=f"port {busy.getsockname()[1]} cannot be used"):
            ui(results, port=busy.getsockname()[1])


def test_no_store_yet(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="nothing is tracked there yet"):
        ui(tmp_path)


def test_mlflow_serves_the_store(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[list[str]] = []

    class Process:
        def __init__(self, command: list[str], **_: Any) -> None:
            started.append(command)

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("mhc_lab.tracking.ui.subprocess.Popen", Process)
    said: list[str] = []
    ui(results, port=0, say=said.append)
    (command,) = started
    assert command[1:4] == ["-m", "mlflow", "server"]
    assert f"sqlite:///{results.resolve()}/runs/mlflow.db" in command
