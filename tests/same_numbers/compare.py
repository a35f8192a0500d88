"""The numbers of a commit beside those of this tree, bit by bit: python compare.py COMMIT

Both trees train the configurations on this machine, on the reference and on the CPU's kernels. The commit's tree is
checked out into a folder that is removed again. Exit code 0: equal; 1: not, with what differs; 2: no such commit.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BACKENDS = ("reference", "cpu")
SHOWN = 10  # differences of a backend

Losses = dict[str, list[dict[str, Any]]]


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if len(arguments) != 1:
        print("usage: nox -s same_numbers -- COMMIT", file=sys.stderr)
        return 2
    differ = False
    try:
        with _worktree(arguments[0]) as then, tempfile.TemporaryDirectory() as scratch:
            for backend in BACKENDS:
                out = Path(scratch) / "losses.json"
                was, now = losses(then, backend, out), losses(ROOT, backend, out)
                told = list(differences(was, now))
                differ |= bool(told)
                print(f"{backend}: {len(now)} configurations, {verdict(told)}")
                print("".join(f"  {line}\n" for line in told[:SHOWN]), end="", flush=True)
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(map(str, error.cmd))}: exit code {error.returncode}", file=sys.stderr)
        return 2
    return int(differ)


def losses(tree: Path, backend: str, out: Path) -> Losses:
    """What the configurations log, trained by the package in `tree`."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src"), "MHC_LAB_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, HERE / "losses.py", out], env=environment, check=True, cwd=out.parent)
    found: Losses = json.loads(out.read_text())
    return found


def differences(was: Losses, now: Losses, tolerance: float = 0.0) -> Iterator[str]:
    """Every number of `now` that is not that of `was`, in words; one that both have as null is equal."""
    for name in now:
        if len(was.get(name, [])) != len(now[name]):
            yield f"{name}: {len(was.get(name, []))} lines then, {len(now[name])} now"
            continue
        for then, line in zip(was[name], now[name], strict=True):
            for key in then:  # a metric that is new is no other number
                one, other = then[key], line.get(key)
                if one != other and not _close(one, other, tolerance):
                    yield f"{name}, step {line.get('step')}: {key} was {one!r}, is {other!r}"


def verdict(told: Sequence[str]) -> str:
    return f"{len(told)} numbers differ" if told else "every number is equal, bit for bit"


def _close(one: Any, other: Any, tolerance: float) -> bool:
    if not (isinstance(one, float) and isinstance(other, float)):
        return False
    return abs(one - other) <= tolerance * max(1.0, abs(one))


@contextmanager
def _worktree(commit: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        subprocess.run(["git", "-C", ROOT, "worktree", "add", "-q", "--detach", tree, commit], check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "-C", ROOT, "worktree", "remove", "--force", tree], check=True)


if __name__ == "__main__":
    raise SystemExit(main())
