"""`python -m mhc_lab.tracking.watched COMMAND ...`: run a command that ends, with all it starts, when stdin closes.

Stdin is a pipe that the parent holds: it closes however the parent ends, SIGKILL included.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading

_PATIENCE = 5.0  # seconds from being asked to end to being ended


def main() -> int:
    command = subprocess.Popen(sys.argv[1:], stdin=subprocess.DEVNULL)

    ending = threading.Event()

    def watch() -> None:
        os.read(0, 1)
        ending.set()
        _end(command)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    code = command.wait()
    if ending.is_set():
        watcher.join()  # the group may hold more than the command
    return code


def _end(command: subprocess.Popen[bytes]) -> None:
    """End this process's group: the command, what it started, and this."""
    command.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        command.wait(_PATIENCE)
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(main())
