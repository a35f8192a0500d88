"""What every command that runs a study holds while it does: the study itself, and its place in the tracking server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from filelock import Timeout

from mhc_lab.config.schema import TrackingConfig
from mhc_lab.errors import Interrupted, LabError
from mhc_lab.run_folder import runs_dir
from mhc_lab.study.folder import StudyFolder


class StudyInterrupted(Interrupted):
    """The user stopped the study."""


@dataclass
class Ending:
    """How the command ended, for the tracking server; `failed` until it is said otherwise."""

    status: Literal["FINISHED", "FAILED", "KILLED"] | None = "FAILED"
    artifacts: list[Path] = field(default_factory=list)


@contextmanager
def alone(folder: StudyFolder) -> Iterator[None]:
    """Hold the study: two commands that queue trials of one study would close each other's."""
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        runs_dir(folder.results).mkdir(parents=True, exist_ok=True)
        lock = folder.lock()
        lock.acquire()
    except OSError as error:
        if isinstance(error, Timeout):
            raise LabError(
                f"study '{folder.name}' is being run by another command; "
                f"to add workers to it, use: mhc-lab worker {folder.name}"
            ) from error
        raise LabError(f"{folder.path}: cannot be written: {error.strerror}; choose another --results") from error
    try:
        yield
    finally:
        lock.release()


@contextmanager
def concluded(folder: StudyFolder, tracking: TrackingConfig) -> Iterator[Ending]:
    """Tell the tracking server how the study ended. Ctrl-C becomes StudyInterrupted."""
    ending = Ending()
    try:
        yield ending
    except KeyboardInterrupt:
        ending.status = "KILLED"
        raise StudyInterrupted("interrupted: nothing finished is lost; repeat the same command to go on") from None
    except LabError:
        ending.status = None  # refused before anything ran: what is tracked of the study still holds
        raise
    finally:
        if ending.status is not None and tracking.backend == "mlflow":
            from mhc_lab.tracking import mlflow

            mlflow.end_study(folder.results, folder.name, tracking, ending.status, ending.artifacts)
