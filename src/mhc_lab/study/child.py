"""The process of one run: an out-of-memory or a segfault ends a run, not the study.

It prints into the run folder's log.txt and ends when its worker does: a killed worker's children would otherwise
run on, beside their requeued twins.
"""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable
from multiprocessing import connection
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Protocol

from filelock import Timeout

from mhc_lab.disk import EXIT_DISK_FULL, DiskFull, is_disk_full
from mhc_lab.errors import LabError
from mhc_lab.machine import speak_anyway
from mhc_lab.residual.registry import resolve
from mhc_lab.run_folder import RunFolder
from mhc_lab.secrets import redact

# Called with the RunFolder. It writes the record; a LabError caused by the folder's lock says that it is held.
DEFAULT_TARGET = "mhc_lab.training.run:run"
JUDGED_TARGET = "mhc_lab.training.run:run_judged"  # that of a sweep which prunes
EXIT_BUSY = 75
_LONGEST_TMPDIR = 60  # bytes, of the 107 of a socket's path

_MLFLOW_STORE = (
    "mlflow.store.tracking.sqlalchemy_workspace_store",
    "alembic.command",
)  # 2.5 s that each run would spend


class Child(Protocol):
    def wait(self, seconds: float) -> int | None:
        """The exit code, negative for a signal; None while it runs."""

    def kill(self) -> None:
        """End it at once, its own children included, and wait for that."""


def start(folder: RunFolder, target: str) -> Child:
    """Start the run of a folder: forked from a warm server, or as a command of its own where it has many devices.

    Lightning's DDP starts a run's other ranks by repeating the command line of its process.
    """
    trainer = folder.config().trainer
    if trainer.devices * trainer.num_nodes > 1:
        return _CommandChild(folder, target)
    return _ForkedChild(folder, target)


def preload(target: str, *, mlflow: bool) -> None:
    """Have the server that single-device runs are forked from import what they need; before the first run."""
    modules = [__name__, target.partition(":")[0]]
    if target in (DEFAULT_TARGET, JUDGED_TARGET):
        modules = ["lightning", *modules, "mhc_lab.ops.warmed"]
    if mlflow:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # it would start a thread before the fork
        modules += _MLFLOW_STORE
    _context().set_forkserver_preload(modules)


class _ForkedChild:
    def __init__(self, folder: RunFolder, target: str) -> None:
        for last in (False, True):
            self._process = _context().Process(target=_forked, args=(str(folder.path), target))
            try:
                self._process.start()
                return
            except (EOFError, ConnectionError):  # the server was killed; starting again makes another
                if last:
                    raise

    def wait(self, seconds: float) -> int | None:
        self._process.join(seconds)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self._process.join()


class _CommandChild:
    def __init__(self, folder: RunFolder, target: str) -> None:
        command = [sys.executable, "-m", "mhc_lab.study.child", str(folder.path), target]
        with folder.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, seconds: float) -> int | None:
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def kill(self) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _context() -> ForkServerContext:
    _short_sockets()
    return multiprocessing.get_context("forkserver")


@functools.cache
def _short_sockets() -> None:
    """The server's socket lies in the folder of temporary files, and its path may have 107 bytes."""
    if len(os.fsencode(tempfile.gettempdir())) <= _LONGEST_TMPDIR:
        return
    for place in ("/tmp", "/var/tmp", "/dev/shm"):
        try:
            folder = tempfile.mkdtemp(prefix="mhc-lab-", dir=place)
        except OSError:
            continue
        multiprocessing.current_process()._config["tempdir"] = folder  # type: ignore[attr-defined]
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return
    raise LabError(
        f"TMPDIR={tempfile.gettempdir()}: too long for a socket, and /tmp cannot be written: give a shorter one"
    )


def exit_with_parent(wait: Callable[[], object]) -> None:
    """Leave this process as soon as `wait`, which blocks until the parent is gone, returns."""

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()


def _forked(folder: str, target: str) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    exit_with_parent(lambda: connection.wait([parent.sentinel]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the worker's to handle
    with RunFolder(Path(folder)).log_file.open("ab") as log:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    code = _run(folder, target)
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


def _leads() -> bool:
    """Whether this is no further rank of a run of many devices, which repeats the first one's command line."""
    return all(os.environ.get(name, "0") == "0" for name in ("LOCAL_RANK", "RANK", "NODE_RANK", "SLURM_PROCID"))


def _ended_meanwhile(folder: RunFolder) -> bool:
    """Whether another study's process has made this run since the worker looked: under the lock, as it writes there."""
    try:
        with folder.lock():
            return folder.ended()
    except Timeout as error:
        raise LabError(f"{folder.path}: another process works on this run") from error


def _run(folder: str, target: str) -> int:
    speak_anyway()
    try:
        if _leads() and _ended_meanwhile(RunFolder(Path(folder))):
            return 0
        resolve(target)(RunFolder(Path(folder)))
    except LabError as error:
        if isinstance(error.__cause__, Timeout):
            return EXIT_BUSY
        print(redact(str(error)), file=sys.stderr)
        return EXIT_DISK_FULL if isinstance(error, DiskFull) else error.exit_code
    except Exception as error:
        if is_disk_full(error):
            return EXIT_DISK_FULL
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    # The worker holds the other end of stdin, and so do the ranks that Lightning starts from here.
    exit_with_parent(lambda: os.read(0, 1))
    sys.exit(_run(sys.argv[1], sys.argv[2]))
