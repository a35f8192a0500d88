from __future__ import annotations

import io
import signal
import socket
import subprocess
import sys
import time
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
            self.stdin = io.BytesIO()

        def wait(self) -> int:
            return 0

    monkeypatch.setattr("mhc_lab.tracking.ui.subprocess.Popen", Process)
    said: list[str] = []
    ui(results, port=0, say=said.append)
    (command,) = started
    assert command[1:3] == ["-m", "mhc_lab.tracking.watched"]
    assert command[4:7] == ["-m", "mlflow", "server"]
    assert f"sqlite:///{results.resolve()}/runs/mlflow.db" in command
    assert "#/experiments/" in said[0]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP, signal.SIGKILL, None])
def test_what_is_watched_ends_with_its_parent(how: signal.Signals | None, tmp_path: Path) -> None:
    """The parent is killed in every way, or just ends; the command, and what that started, are gone."""
    started = tmp_path / "started"
    inner = (
        "import os, subprocess, sys, time; "
        "inner = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); "
        f"open({str(started)!r}, 'w').write(f'{{os.getpid()}} {{inner.pid}}'); time.sleep(60)"
    )
    outer = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGHUP, signal.SIG_DFL); "  # not as under nohup
        "p = subprocess.Popen([sys.executable, '-m', 'mhc_lab.tracking.watched', sys.executable, '-c', sys.argv[1]], "
        "stdin=subprocess.PIPE, start_new_session=True); "
        f"[time.sleep(0.05) for _ in iter(lambda: __import__('os').path.exists({str(started)!r}), True)]; "
        + ("time.sleep(60)" if how else "time.sleep(0.5)")
    )
    parent = subprocess.Popen([sys.executable, "-c", outer, inner])
    deadline = time.monotonic() + 60
    while not (started.exists() and started.read_text().count(" ")) and time.monotonic() < deadline:
        time.sleep(0.05)
    pids = [int(word) for word in started.read_text().split()]
    if how is not None:
        parent.send_signal(how)
    parent.wait(60)
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, pids))


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False
