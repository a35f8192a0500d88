"""This machine in words and numbers, torch-free."""

from __future__ import annotations

import codecs
import ctypes
import io
import os
import platform
import sys
import tempfile
from pathlib import Path

from mhc_lab.errors import LabError

_PLAINLY = "mhc_lab.plainly"
_PLAIN = {"−": "-", "–": "-", "±": "+", "×": "x", "✓": "y", "●": "o", "…": "~", "≤": "<", "≥": ">", "→": ">"}
BACKENDS = ("auto", "reference", "gpu", "cpu")
BACKEND_VARIABLE = "MHC_LAB_BACKEND"
THREADS_VARIABLE = "MHC_LAB_THREADS"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_KEEP = 2**31 - 1  # bytes at the top of the heap
_LARGEST_MMAP_THRESHOLD = 32 * 2**20  # larger ones are refused


def check_backend() -> None:
    """LabError for a backend that is none, before a command begins anything."""
    name = os.environ.get(BACKEND_VARIABLE) or "auto"
    if name not in BACKENDS:
        raise LabError(f"{BACKEND_VARIABLE}={name}: choose one of {', '.join(BACKENDS)}")


def _plainly(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeEncodeError)
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def speak_anyway() -> None:
    """On a terminal or in a pipe that is not UTF-8, a character that it lacks is written in plain ones: no error."""
    codecs.register_error(_PLAINLY, _plainly)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_PLAINLY)


def cores() -> int:
    """CPU cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def threads_each(processes: int) -> int:
    """CPU threads of each of so many processes: MHC_LAB_THREADS, else its part of the cores.

    Raises LabError for a value that is no number of threads.
    """
    given = os.environ.get(THREADS_VARIABLE, "")
    if not given:
        return max(1, cores() // processes)
    if not given.isdecimal() or int(given) < 1:
        raise LabError(f"{THREADS_VARIABLE}={given}: must be a whole number, at least 1")
    return int(given)


def processor() -> str:
    """The processor's model; its architecture where the system does not say."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Have glibc keep what is freed for the next allocation, instead of giving it back to the system.

    A training step on a CPU allocates and frees the same megabytes again and again; each time, the system would hand
    out and clear fresh pages, which costs a plain model about 5 % of its step. Elsewhere than on glibc: nothing.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc is not None and hasattr(libc, "gnu_get_libc_version"):
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)


def ensure_home() -> None:
    """A home folder for libraries that insist on one, where the user of a container has neither HOME nor a name."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = tempfile.gettempdir()


def safe_environment() -> dict[str, str]:
    """The environment of a Python that is started here: the working folder's files do not stand for modules in it."""
    return {**os.environ, "PYTHONSAFEPATH": "1"}


def existing(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    return next(place for place in (path.resolve(), *path.resolve().parents) if place.exists())


def can_be_written(results: Path) -> bool:
    """Whether files can be written in a folder that may not be there yet; it is not made."""
    try:
        with tempfile.TemporaryFile(dir=existing(results)):
            return True
    except OSError:
        return False


def refuse_unwritable(results: Path) -> None:
    """LabError where `results` cannot be written: before the minutes are spent whose result would be lost."""
    if not can_be_written(results):
        raise LabError(f"{results}: cannot be written (in {existing(results)}): choose another --results")
