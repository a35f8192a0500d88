"""The numbers of a commit beside those of this tree, bit by bit: python compare.py COMMIT [--ledger WHY]

`--ledger`: where they are equal, the definitions that differ become an entry of `mhc_lab/identity/ledger.json`.
Both trees train the configurations on this machine, on the reference and on the CPU's kernels. The commit's tree is
checked out into a folder that is removed again. Exit code 0: equal; 1: not, with what differs; 2: no such commit.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mhc_lab.identity.ledger import FILE as LEDGER
from mhc_lab.identity.ledger import difference

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
BACKENDS = ("reference", "cpu")
SHOWN = 10  # differences of a backend

Losses = dict[str, list[dict[str, Any]]]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nox -s same_numbers --", description="Two trees, number by number.")
    parser.add_argument("commit", help="whose numbers are compared with those of this tree")
    parser.add_argument("--ledger", metavar="WHY", help="enter what has changed, where the numbers are equal")
    given = parser.parse_args(argv)
    differ = False
    try:
        with _worktree(given.commit) as then, tempfile.TemporaryDirectory() as scratch:
            for backend in BACKENDS:
                out = Path(scratch) / "losses.json"
                was, now = losses(then, backend, out), losses(ROOT, backend, out)
                told = list(differences(was, now))
                differ |= bool(told)
                print(f"{backend}: {len(now)} configurations, {verdict(told)}")
                print("".join(f"  {line}\n" for line in told[:SHOWN]), end="", flush=True)
            if given.ledger and not differ:
                commit = subprocess.check_output(["git", "-C", then, "rev-parse", "--short=12", "HEAD"], text=True)
                print(enter(definitions(then), definitions(ROOT), given.ledger, commit.strip()))
    except subprocess.CalledProcessError as error:
        print(f"error: {' '.join(map(str, error.cmd))}: exit code {error.returncode}", file=sys.stderr)
        return 2
    return int(differ)


def definitions(tree: Path) -> dict[str, str]:
    """All that runs may execute of the package in `tree`."""
    asked = "import json; from mhc_lab.identity.code import everything; print(json.dumps(everything()))"
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    printed = subprocess.run([sys.executable, "-c", asked], env=environment, check=True, stdout=subprocess.PIPE)
    found: dict[str, str] = json.loads(printed.stdout)
    return found


def enter(was: dict[str, str], now: dict[str, str], why: str, commit: str, file: Path = LEDGER) -> str:
    """Append the ledger's entry of what differs; returns what was done, in words."""
    before, after = difference(was, now)
    content = json.loads(file.read_text())
    if not before and not after:
        return "no definition differs: nothing to enter"
    shown = f"nox -s same_numbers -- {commit}"
    content["changes"].append({"why": why, "shown": shown, "was": before, "is": after})
    file.write_text(json.dumps(content, indent=1) + "\n")
    return f"entered: {len(before)} definitions then, {len(after)} now"


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
