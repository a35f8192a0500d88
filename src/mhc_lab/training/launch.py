"""A run as `train` starts it. Imports Lightning only where this process is to train itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

from mhc_lab.config.schema import RunConfig
from mhc_lab.errors import EXIT_INPUT, EXIT_INTERRUPTED, EXIT_OK, LabError
from mhc_lab.machine import safe_environment
from mhc_lab.run_folder import RunFolder, Status
from mhc_lab.tracking import mlflow
from mhc_lab.training.interrupts import Killed, interruptible
from mhc_lab.training.placement import accelerator, global_rank, ranks, under_torchrun

_STOP_SECONDS = 20  # that several processes get to record their end


def launch(folder: RunFolder, *, progress: bool = False) -> dict[str, Any]:
    """`run`, in this process where it is the only rank or one that torchrun started, else in processes of its own."""
    config = folder.config()
    if ranks(config.trainer) == 1 or under_torchrun():
        from mhc_lab.training.run import run

        return run(folder, progress=progress)
    accelerator(config.trainer)
    started = datetime.now(UTC)
    command = [sys.executable, "-m", "mhc_lab.training.run", str(folder.path), *(["--progress"] if progress else [])]
    # A session of its own, so that what hangs can be ended whole.
    with subprocess.Popen(command, start_new_session=True, env=safe_environment()) as process:
        try:
            with interruptible():
                code = process.wait()
        except Killed:
            process.terminate()
            try:
                code = process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
    record = folder.record()
    if code == EXIT_INPUT:
        raise LabError(f"{folder.path}: could not be run; the reason stands above")
    if global_rank(config.trainer) > 0:  # the first rank records, and may still be at it
        outcomes: dict[int, Status] = {EXIT_OK: "finished", EXIT_INTERRUPTED: "killed"}
        reason = None if code == EXIT_OK else "the reason stands above"
        return _record(folder, config, started, outcomes.get(code, "failed"), reason)
    if record is None:
        record = _record(folder, config, started, "failed", f"its process ended with code {code}")
        folder.write_record(record)
        if config.tracking.backend == "mlflow":
            mlflow.push(folder)
    return record


def _record(
    folder: RunFolder, config: RunConfig, started: datetime, status: Status, reason: str | None
) -> dict[str, Any]:
    """The record of a run of which this process has measured nothing."""
    from mhc_lab.training.record import Measured, build_record  # imports Lightning

    return build_record(folder, config, Measured(started), status, reason)
