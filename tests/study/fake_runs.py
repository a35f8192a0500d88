"""Stand-ins for training: targets that a worker's children call. Importable there through PYTHONPATH."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

from mhc_lab.run_folder import RunFolder

LOSS = 2.0
CODE = "now"


def quick(folder: RunFolder) -> None:
    """Finishes at once; the loss is a function of the run."""
    with folder.lock():
        _begin(folder)
        _end(folder, "finished")


def slow(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        time.sleep(20)
        _end(folder, "finished")


def diverges_at_1(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        _end(folder, "diverged" if folder.config().seed == 1 else "finished")


def killed_once_at_1(folder: RunFolder) -> None:
    """The run of seed 1 gets a kill -9 the first time."""
    with folder.lock():
        _begin(folder)
        if folder.config().seed == 1 and begun(folder) == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        _end(folder, "finished")


def raises(folder: RunFolder) -> None:  # noqa: ARG001
    raise MemoryError("no room for the streams")


def kills_its_worker_once_at_1(folder: RunFolder) -> None:
    """The run of seed 1 takes its worker down the first time, and would finish 2 s later if nothing ended it."""
    with folder.lock():
        _begin(folder)
        if folder.config().seed == 1 and begun(folder) == 1:
            _kill_worker()
        _end(folder, "finished")


def kills_its_worker_once_at_hc_1(folder: RunFolder) -> None:
    with folder.lock():
        _begin(folder)
        config = folder.config()
        if (config.residual.variant, config.seed) == ("hc", 1) and begun(folder) == 1:
            _kill_worker()
        _end(folder, "finished")


def _kill_worker() -> None:
    worker = multiprocessing.parent_process()
    assert worker is not None
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    time.sleep(2)


def begun(folder: RunFolder) -> int:
    """How often a run was begun."""
    return _count(folder.path / "begun")


def ended(folder: RunFolder) -> int:
    """How often a run came to its end."""
    return _count(folder.path / "ended")


def _begin(folder: RunFolder) -> None:
    folder.clear()
    _append(folder.path / "begun", {"pid": os.getpid()})


def _end(folder: RunFolder, status: str) -> None:
    config = folder.config()
    _append(folder.path / "ended", {"pid": os.getpid()})
    folder.write_record(
        {
            "run_id": folder.run_id,
            "status": status,
            "reason": "NaN loss at step 3" if status == "diverged" else None,
            "seconds": 0.1,
            "seed": config.seed,
            "code_fingerprint": CODE,
            "metrics": {"val_loss": LOSS + config.seed},
        }
    )


def _append(file: Path, line: dict[str, int]) -> None:
    with file.open("a") as lines:
        lines.write(json.dumps(line) + "\n")


def _count(file: Path) -> int:
    return len(file.read_text().splitlines()) if file.is_file() else 0
