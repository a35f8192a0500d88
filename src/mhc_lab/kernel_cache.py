"""Where compiled CPU kernels lie, and whether they have to be compiled first. Torch-free: a study asks before its
workers import anything."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Literal

import mhc_lab
from mhc_lab.machine import BACKEND_VARIABLE

ONCE = "once on this machine: about a quarter of a minute"  # what compiling takes
Form = Literal["sequential", "parallel"]  # on one thread, as in the runs of a study, or on all


def unusable() -> str:
    """Why CPU kernels cannot run here; "" where they can."""
    if not _has_numba():
        return "numba is not installed"
    return "" if os.environ.get("NUMBA_DISABLE_JIT", "0") in ("", "0") else "NUMBA_DISABLE_JIT is set"


def cold(form: Form = "sequential") -> bool:
    """Whether the CPU kernels have to be compiled before a run uses them."""
    wanted = os.environ.get(BACKEND_VARIABLE) or "auto"
    return wanted in ("auto", "cpu") and not unusable() and not _any(form)


@functools.cache
def folder() -> Path:
    """One for the source as it is: Numba looks at the file of a kernel, not at those of its inner functions."""
    digest = hashlib.sha256()
    for source in sorted((Path(mhc_lab.__file__).parent / "ops").glob("**/*.py")):
        digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "mhc_lab" / f"kernels-{digest.hexdigest()[:12]}"


@functools.cache
def _has_numba() -> bool:
    return importlib.util.find_spec("numba") is not None


def _any(form: Form) -> bool:
    try:
        return any((folder() / form).rglob("*.nbi"))
    except (RuntimeError, OSError):  # no home, or none that can be read
        return False
