"""What the surroundings of a command may be: terminals, variables, caches, architectures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.survival

TINY = ["tracking=none", "model.blocks=1", "model.dim=16", "model.heads=2", "model.sequence_length=16",
        "data.batch_size=2", "data.val_windows=4", "trainer.max_steps=2", "trainer.threads=1"]  # fmt: skip


def command(place: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mhc_lab", *arguments],
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


def test_a_terminal_that_knows_ascii_alone_gets_plain_signs(tmp_path: Path) -> None:
    grid = tmp_path / "g.yaml"
    grid.write_text(
        f"title: α → β\nbaseline: identity\nseeds: [0, 1, 2]\noverrides: [{', '.join(TINY)}]\n"
        "rows: {identity: {overrides: [residual=identity]}, hc: {overrides: [residual=hc]}}\n"
    )
    done = command(tmp_path, "ablate", "g.yaml", LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert "? > ?" in done.stdout
    assert "interval" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("arguments", [["train", *TINY], ["ablate", "demo"], ["sweep", "smoke"], ["doctor"]])
def test_an_unknown_backend_is_one_line_before_anything_is_written(arguments: list[str], tmp_path: Path) -> None:
    done = command(tmp_path, *arguments, MHC_LAB_BACKEND="tpu")
    assert done.returncode == 2
    assert done.stderr == "error: MHC_LAB_BACKEND=tpu: choose one of auto, reference, gpu, cpu\n"
    assert not any(tmp_path.iterdir())


def test_compiling_is_said_once_and_is_in_no_speed(tmp_path: Path) -> None:
    cache = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    first = command(tmp_path, "train", "residual=mhc", *TINY, **cache)
    assert first.returncode == 0, first.stderr
    assert first.stdout.startswith("compiling the CPU kernels, once on this machine")
    again = command(tmp_path, "train", "residual=mhc", "seed=1", *TINY, **cache)
    assert "compiling" not in again.stdout
    speeds = [float(done.stdout.split("ms_per_step ")[1].split()[0]) for done in (first, again)]
    assert speeds[0] < 20 * speeds[1] + 200, speeds  # compiling takes ten seconds and more


def test_without_numba_everything_runs_on_the_reference_and_says_so_once(tmp_path: Path) -> None:
    """As on a processor for which there is no wheel of Numba."""
    (tmp_path / "shadow").mkdir()
    (tmp_path / "shadow" / "sitecustomize.py").write_text(
        "import importlib.util as util, sys\n"
        "found = util.find_spec\n"
        "util.find_spec = lambda name, *more: None if name in ('numba', 'triton') else found(name, *more)\n"
        "sys.modules['numba'] = None\n"
    )
    done = command(tmp_path, "train", "residual=mhc", *TINY, PYTHONPATH=str(tmp_path / "shadow"))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("numba is not installed: operations run on their slower reference") == 1
    assert "finished" in done.stdout
