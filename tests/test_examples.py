"""The examples run as they are printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(*arguments: object) -> str:
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_own_model() -> None:
    losses = dict(line.split() for line in run(EXAMPLES / "own_model.py").splitlines())
    assert losses.keys() == {"identity", "hc", "mhc"}
    assert all(0 < float(loss) < 0.3 for loss in losses.values())


def test_grid(tmp_path: Path) -> None:
    told = run(EXAMPLES / "grid.py", tmp_path)
    assert "p_holm" in told
    assert "| mhc |" in told
    assert told.splitlines()[-1].startswith("finished ")
    records = {file: file.stat().st_mtime_ns for file in tmp_path.glob("runs/*/record.json")}
    assert len(records) == 7
    run(EXAMPLES / "grid.py", tmp_path)
    assert {file: file.stat().st_mtime_ns for file in records} == records


def test_plugin() -> None:
    told = run("-m", "mhc_lab", "check", EXAMPLES / "averaging.py", "residual.largest_mix=0.5")
    assert told.endswith("79 cases, 79 hold, 0 broken\n")


def test_every_example_is_run_here() -> None:
    text = Path(__file__).read_text()
    assert all(f'"{file.name}"' in text for file in EXAMPLES.glob("*.py"))


def test_the_api_needs_no_torch() -> None:
    assert run("-c", "import sys, mhc_lab.api; print('torch' in sys.modules or 'optuna' in sys.modules)") == "False\n"


@pytest.mark.parametrize("name", ["ablate", "compose", "load", "summarize", "table", "train"])
def test_the_api_is_documented(name: str) -> None:
    from mhc_lab import api

    assert getattr(api, name).__doc__
    assert f"api.{name}(" in (EXAMPLES / "grid.py").read_text()
