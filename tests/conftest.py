"""Shared by all tests: quiet trackers, few threads, and configs that train in a second."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers of the test runner share two cores
if not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):  # no GPU; torch would take a second to say so
    os.environ.setdefault("TRITON_INTERPRET", "1")

from mhc_lab.config import RunConfig, compose

TINY = (
    "model.blocks=2",
    "model.dim=32",
    "model.heads=2",
    "model.sequence_length=32",
    "data.batch_size=4",
    "data.val_windows=8",
    "trainer.max_steps=4",
    "optim.warmup_steps=2",
    "tracking=none",
)


@pytest.fixture(scope="session")
def tiny() -> Callable[..., RunConfig]:
    """A config of a model that trains in a second: `tiny("residual=hc", "trainer.max_steps=2")`."""

    def make(*overrides: str) -> RunConfig:
        return compose([*TINY, *overrides])

    return make
