"""A full disk: one line that names it, exit code 3, nothing half-written; with room the same command goes on."""

from __future__ import annotations

import errno
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mhc_lab.disk import is_disk_full

FULL = OSError(errno.ENOSPC, "No space left on device")
# Mounted in a namespace of its own, which takes no rights; the commands are repeated once there is room.
SCRIPT = """
mount -t tmpfs -o size={size} none disk || exit 99
cd disk
"$@" 2>&1; echo "exit code $?"
find . -name '*.pt' -o -name 'checkpoint.*' -o -name '*.tmp' | sed 's/^/left: /'
mount -o remount,size=64m ../disk
"$@" 2>&1; echo "exit code $?"
"""


def test_what_is_a_full_disk() -> None:
    assert is_disk_full(FULL)
    assert is_disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert is_disk_full(RuntimeError("(sqlite3.OperationalError) database or disk is full"))
    assert not is_disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not is_disk_full(RuntimeError("could not write"))
    error = RuntimeError("unexpected pos 128 vs 22")  # as torch says while it closes its archive
    error.__context__ = FULL
    assert is_disk_full(error)


@pytest.mark.survival
@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare, which makes a disk of its own")
@pytest.mark.parametrize(("size", "command"), [("250k", "train"), ("450k", "ablate")])
def test_a_command_goes_on_once_there_is_room(size: str, command: str, smallest: list[str], tmp_path: Path) -> None:
    tracked = smallest[1:]
    grid = tmp_path / "g.yaml"
    grid.write_text(
        f"baseline: identity\nseeds: [0, 1]\noverrides: [{', '.join(tracked)}]\n"
        "rows:\n  identity: {overrides: [residual=identity]}\n"
    )
    arguments = ["train", *tracked] if command == "train" else ["ablate", str(grid)]
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "bash", "-c", SCRIPT.format(size=size), "bash",
         sys.executable, "-m", "mhc_lab", *arguments],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        pytest.skip("no tmpfs may be mounted here")
    first, _, second = done.stdout.partition("exit code 3\n")
    (line,) = [line for line in first.splitlines() if line.startswith("error: ")]
    assert "no space left on the disk: make room and repeat the same command; nothing finished is lost" in line
    assert "Traceback" not in done.stdout
    assert "left: " not in done.stdout
    assert second.endswith("exit code 0\n"), done.stdout
