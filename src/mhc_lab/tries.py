"""What `mhc-lab doctor` tries for real, in a folder that it makes where results will lie, and removes."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mhc_lab.machine import existing, safe_environment

_WORKER_SECONDS = 300
_GRID = """\
title: doctor
baseline: mhc
seeds: [0]
overrides: [data=synthetic, tracking=none, trainer.max_steps=2, trainer.threads=1, data.batch_size=4,
  data.val_windows=4, model.blocks=1, model.dim=16, model.heads=2, model.sequence_length=32]
rows: {mhc: {overrides: [residual=mhc]}}
"""


def kernels() -> Iterator[tuple[bool, str]]:
    """Each operation once, forward and backward, where runs would train, against the equations in fp64."""
    import torch

    from mhc_lab.bench.correctness import judge_all
    from mhc_lab.bench.options import Options
    from mhc_lab.ops import backends

    options = Options("correctness", quick=True, dtype="fp32")
    rows = [row for _, row in judge_all(options)]
    for row in rows:
        if row["outcome"] != "right":
            yield False, f"kernels: {row['case']}: {row['reason']}; MHC_LAB_BACKEND=reference trains without kernels"
    right = sum(row["outcome"] == "right" for row in rows)
    if right:
        place = torch.device("cuda") if torch.cuda.is_available() else torch.device("cpu")
        yield True, f"kernels: {right} operations run and are right ({backends.chosen(place)} backend)"


def database(results: Path) -> Iterator[tuple[bool, str]]:
    """A study in an sqlite file: made, a trial queued, taken and ended."""
    from mhc_lab.study.storage import DEFAULT_STORAGE, StudyStorage, resolve

    with _folder(results) as folder:
        storage = StudyStorage(resolve(DEFAULT_STORAGE, folder), "doctor", folder, interval=10, grace=40)
        storage.create().enqueue_trial({})
        with storage.taking():
            storage.open().optimize(lambda _: 0.0, n_trials=1)
    yield True, "database: an sqlite file there holds a study"


def store(results: Path) -> None:
    """An MLflow store in an sqlite file; MLflow's errors where it cannot be made."""
    from mhc_lab.tracking.store import default_uri, prepare_store

    with _folder(results) as folder:
        prepare_store(default_uri(folder), "doctor", folder)


def worker(results: Path) -> Iterator[tuple[bool, str]]:
    """A grid of one run of two steps: study, worker, child, table."""
    with _folder(results) as folder:
        grid = folder / "doctor.yaml"
        grid.write_text(_GRID, encoding="utf-8")
        command = [sys.executable, "-m", "mhc_lab", "ablate", str(grid), "--results", str(folder)]
        try:
            ended = subprocess.run(
                command, env=safe_environment(), capture_output=True, text=True, timeout=_WORKER_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            yield False, f"worker: a run of two steps has not ended within {_WORKER_SECONDS} s"
            return
    if ended.returncode == 0:
        yield True, "worker: a run of two steps ends with a table"
    else:
        said = [line for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
        yield False, f"worker: {said[-1] if said else f'ended with exit code {ended.returncode}'}"


@contextmanager
def _folder(results: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix=".doctor-", dir=existing(results), ignore_cleanup_errors=True) as folder:
        yield Path(folder)
