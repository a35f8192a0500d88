"""Real training whose worker is killed once: a target that a worker's children call. Importable through PYTHONPATH."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fake_runs import kill_worker

from mhc_lab.run_folder import RunFolder
from mhc_lab.training.callbacks import metrics
from mhc_lab.training.run import run

LINES = 3


def killed_once_at_1(folder: RunFolder) -> dict[str, Any]:
    """Trains; the first run of seed 1 takes its worker down in the middle."""
    marker = folder.path.parent / "a-worker-was-killed"
    if folder.config().seed == 1 and not marker.exists():
        marker.touch()
        write = metrics.append_line

        def write_and_kill(file: Path, values: dict[str, Any]) -> None:
            write(file, values)
            if len(folder.metrics()) >= LINES:
                kill_worker()

        metrics.append_line = write_and_kill
    return run(folder)
