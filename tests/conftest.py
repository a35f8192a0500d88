"""Shared by all tests: quiet trackers, few threads, and configs that train in a second."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers of the test runner share two cores
os.environ.setdefault("MHC_LAB_THREADS", "1")
if not (Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()):  # no GPU; torch would take a second to say so
    os.environ.setdefault("TRITON_INTERPRET", "1")

from mhc_lab import cli
from mhc_lab.config import RunConfig, compose
from mhc_lab.residual import registry

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

SMALLEST = [
    "tracking=none",
    "model.blocks=1",
    "model.dim=16",
    "model.heads=2",
    "model.sequence_length=16",
    "data.batch_size=2",
    "data.val_windows=4",
    "trainer.max_steps=2",
    "trainer.threads=1",
]


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    """What a test sets ends with it: threads that wait for others on cores that are all in use cost much time."""
    yield
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(int(os.environ["OMP_NUM_THREADS"]))


@pytest.fixture(scope="session")
def smallest() -> list[str]:
    """Overrides of a run that takes next to nothing; the first turns tracking off."""
    return SMALLEST


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with g.yaml, a grid of identity and mhc, and with its results; to be read, or copied."""
    place = tmp_path_factory.mktemp("studied")
    (place / "g.yaml").write_text(
        f"baseline: identity\nseeds: [0]\noverrides: [{', '.join(SMALLEST)}]\nrows:\n"
        "  identity: {overrides: [residual=identity]}\n  mhc: {overrides: [residual=mhc]}\n"
    )
    assert cli.main(["ablate", str(place / "g.yaml"), "--results", str(place / "results")]) == 0
    return place


@pytest.fixture(scope="session")
def tiny() -> Callable[..., RunConfig]:
    """A config of a model that trains in a second: `tiny("residual=hc", "trainer.max_steps=2")`."""

    def make(*overrides: str) -> RunConfig:
        return compose([*TINY, *overrides])

    return make


class Done(NamedTuple):
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def mhc_lab(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A command in this process, which has imported what it needs: `mhc_lab("export", "g", cwd=place)`."""

    def run(*arguments: str, cwd: Path) -> Done:
        monkeypatch.chdir(cwd)
        monkeypatch.setattr("sys.argv", ["mhc-lab", *arguments])
        capfd.readouterr()
        code = cli.main(list(arguments))
        return Done(code, *capfd.readouterr())

    return run


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """What a module's tests register is gone after them."""
    yield from _registered_for_a_while()


@pytest.fixture
def plugged() -> Iterator[None]:
    """What a test registers is gone after it."""
    yield from _registered_for_a_while()


def _registered_for_a_while() -> Iterator[None]:
    registry.variants()  # those of installed plugins first
    tables = (registry._VARIANTS, registry._CONSTRAINTS, registry._OWN, registry._loaded_plugins)
    before = [table.copy() for table in tables]
    yield
    for table, former in zip(tables, before, strict=True):
        table.clear()
        table.update(former)
