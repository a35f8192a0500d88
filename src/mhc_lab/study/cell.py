"""One run folder -> its record: the run in a child process, and what is written when the child cannot write it."""

from __future__ import annotations

import datetime
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import Timeout

from mhc_lab.config.schema import RunConfig
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.disk import EXIT_DISK_FULL, DiskFull
from mhc_lab.errors import EXIT_INPUT, LabError
from mhc_lab.run_folder import RunFolder, Status
from mhc_lab.study import child

_POLL_SECONDS = 0.1
_JUDGE_SECONDS = 0.02  # a run that asks stands still until it has its answer
_LOCK_SECONDS = 5
_OUT_OF_MEMORY = re.compile(r"out of memory|MemoryError|bad_alloc|can't allocate memory|Cannot allocate", re.IGNORECASE)
_TAIL_BYTES = 4000
_OVERTIME_SECONDS = 60.0  # that a run over trainer.time_limit gets to say so itself
_SERVER_DIED = 255  # what is known of a forked process whose server was killed


Judge = Callable[[int, float], bool]  # step and validation loss -> whether the run is to be pruned there


class _Hangs(Exception):
    """A run that is over its time and says nothing."""


class Stopped(Exception):
    """The worker was told to stop; the run, if it had begun, is recorded as killed."""


def run_cell(
    folder: RunFolder, target: str, stopping: Callable[[], bool], judge: Judge | None = None
) -> dict[str, Any]:
    """The record of a run: found where it has a result, else made in a child process.

    A folder that another process works on is waited for. With `judge`, the `target` asks at its validations whether to
    go on. Raises Stopped once `stopping()`.
    """
    while True:
        if stopping():
            raise Stopped
        try:
            with folder.lock():
                record = folder.record()
                if record is not None and folder.ended():
                    return record
                folder.record_file.unlink(missing_ok=True)
        except Timeout:
            time.sleep(_POLL_SECONDS)
            continue
        record = _attempt(folder, target, stopping, judge)
        if record is not None:
            return record


def record_end(folder: RunFolder, status: Status, reason: str, started: datetime.datetime | None = None) -> bool:
    """Write the record of a run whose own process could not, and tell the tracking server.

    False where a process works on the run, or it has a record already: then that stands.
    """
    config = folder.config()
    ended = datetime.datetime.now(datetime.UTC)
    started = started or ended
    try:
        with folder.lock(_LOCK_SECONDS):
            if folder.record() is not None:
                return False
            folder.write_record(
                {
                    "run_id": folder.run_id,
                    "status": status,
                    "reason": reason,
                    "started": started.isoformat(),
                    "ended": ended.isoformat(),
                    "seconds": (ended - started).total_seconds(),
                    "variant": config.residual.variant,
                    "seed": config.seed,
                    "control": config.control,
                    "corpus_fingerprint": _corpus(config),
                    "metrics": {},
                    "cost": {},
                }
            )
    except Timeout:
        return False
    if config.tracking.backend == "mlflow":
        from mhc_lab.tracking import mlflow

        mlflow.push(folder)
    return True


def _corpus(config: RunConfig) -> str | None:
    """The fingerprint, or None where a text file has gone since: the end of a run is told all the same."""
    try:
        return corpus_fingerprint(config)
    except LabError:
        return None


def _attempt(
    folder: RunFolder, target: str, stopping: Callable[[], bool], judge: Judge | None
) -> dict[str, Any] | None:
    """Run once, and once more where its process was killed, by whatever. None where another process took the folder
    first. Raises DiskFull: then there is no room for a record either."""
    for last in (False, True):
        record, killed = _try(folder, target, stopping, judge, last=last)
        if not killed or last:
            return record
    raise AssertionError("the last try returns")


def _try(
    folder: RunFolder, target: str, stopping: Callable[[], bool], judge: Judge | None, *, last: bool
) -> tuple[dict[str, Any] | None, bool]:
    """One try: the record, and whether the process was killed without one, which is recorded of the `last` only."""
    started = datetime.datetime.now(datetime.UTC)
    kills = _kernel_kills()
    log_start = folder.log_file.stat().st_size if folder.log_file.is_file() else 0
    process = child.start(folder, target)
    try:
        code = _end_of(process, folder, stopping, judge)
    except _Hangs as error:
        process.kill()
        record_end(folder, "failed", str(error), started)
        return folder.record(), False
    except BaseException as error:
        process.kill()  # it would wait for an answer that nobody gives, and hold its folder
        if isinstance(error, Stopped):
            record_end(folder, "killed", "interrupted", started)
        raise
    folder.end_questions()
    if code == EXIT_DISK_FULL:
        raise DiskFull(folder.path)
    if folder.record() is None and code != child.EXIT_BUSY:
        reason = _reason(code, _tail(folder.log_file, log_start), _kernel_kills() > kills)
        if not last and (code < 0 or code == _SERVER_DIED) and not reason.startswith("out of memory"):
            return None, True
        record_end(folder, "failed", reason, started)
    return folder.record(), False


def _end_of(process: child.Child, folder: RunFolder, stopping: Callable[[], bool], judge: Judge | None) -> int:
    """Wait for a run and answer what it asks; its exit code. Raises Stopped, and what the judge raises."""
    answered = 0
    limit = folder.config().trainer.time_limit
    start = time.monotonic()
    while True:
        code = process.wait(_POLL_SECONDS if judge is None else _JUDGE_SECONDS)
        if code is not None:
            return code
        if stopping():
            raise Stopped
        if limit and time.monotonic() - start > limit + _OVERTIME_SECONDS:
            raise _Hangs(f"over trainer.time_limit={limit} s, and it did not end by itself")
        question = None if judge is None else folder.question()
        if judge is not None and question is not None and question[0] > answered:
            folder.answer(question[0], judge(*question))
            answered = question[0]


def _reason(code: int, last_words: str, kernel_killed: bool) -> str:
    """Why a process ended without a record, in one line."""
    last_line = next((line.strip() for line in reversed(last_words.splitlines()) if line.strip()), "it printed nothing")
    if code == -signal.SIGKILL and kernel_killed:
        return "out of memory: killed by the kernel (SIGKILL)"
    if _OUT_OF_MEMORY.search(last_words):
        return f"out of memory: {last_line}"
    if code == -signal.SIGKILL:
        return "killed by SIGKILL (kill -9, or out of memory in a container)"
    if code < 0:
        return f"killed by {signal.Signals(-code).name}"
    if code == EXIT_INPUT:
        return last_line
    return f"ended with exit code {code} and no record: {last_line}"


def _tail(log: Path, start: int) -> str:
    """The end of what was printed since the log was `start` bytes long."""
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        file.seek(max(start, log.stat().st_size - _TAIL_BYTES))
        return file.read().decode(errors="replace")


def _kernel_kills() -> int:
    """How many processes Linux has killed for want of memory since it started; 0 where it does not say."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)
