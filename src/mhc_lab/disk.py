"""A disk without room: no bug, and nothing that a run's settings could mend."""

from __future__ import annotations

import errno
from pathlib import Path

from mhc_lab.errors import RunsFailed

EXIT_DISK_FULL = 74  # of a child and a worker, to the process that started it: their logs may lie on the same disk
_FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFull(RunsFailed):
    """No room for what a run or study writes; nothing finished is lost, and the same command goes on: exit code 3."""

    def __init__(self, place: Path) -> None:
        super().__init__(
            f"{place}: no space left on the disk: make room and repeat the same command; nothing finished is lost"
        )


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, is for want of room. Databases say it in words of their own."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if "disk is full" in str(error) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
