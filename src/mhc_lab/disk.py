"""A disk without room: no bug, and nothing that a run's settings could mend."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from mhc_lab.errors import RunsFailed
from mhc_lab.machine import existing

EXIT_DISK_FULL = 74  # of a child and a worker, to the process that started it: their logs may lie on the same disk
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LITTLE = 64 * 1024  # bytes that are as good as none


class DiskFull(RunsFailed):
    """No room for what a run or study writes; nothing finished is lost, and the same command goes on: exit code 3."""

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"{place}: no space left on the disk: make room and repeat the same command; nothing finished is lost"
        )


def is_disk_full(error: BaseException | None, place: Path) -> bool:
    """Whether an error, or what caused it, is for want of room where `place` lies.

    Libraries that write for themselves (torch, sqlite) say it in words of their own: then the disk is asked.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        text = str(error)
        if "disk is full" in text or "No space left" in text:
            return True
        if isinstance(error, RuntimeError) and "writ" in text and _is_full(place):
            return True
        error = error.__cause__ or error.__context__
    return False


def _is_full(place: Path) -> bool:
    found = os.statvfs(existing(place))
    return found.f_bavail * found.f_frsize < _LITTLE or (found.f_files > 0 and found.f_favail == 0)
