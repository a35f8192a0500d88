"""Bugs of ours, planted all over the package: each ends with exit code 1 and its traceback, never as a mistake."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mhc_lab import cli

TINY = ["tracking=none", "model.blocks=1", "model.dim=16", "model.heads=2", "model.sequence_length=16",
        "data.batch_size=2", "data.val_windows=4", "trainer.max_steps=2", "trainer.threads=1"]  # fmt: skip
TRAIN = ["train", "--dry-run", *TINY]
# Where it stands, what it raises, and a command that comes by.
PLANTED: list[tuple[str, Exception, list[str]]] = [
    ("mhc_lab.config.compose.check_domains", KeyError("planted"), TRAIN),
    ("mhc_lab.config.compose.unread", AttributeError("planted"), [*TRAIN, "seed=1"]),
    ("mhc_lab.config.run_id.canonical", TypeError("planted"), TRAIN),
    ("mhc_lab.residual.registry.check_sinkhorn", RecursionError("planted"), TRAIN),
    ("mhc_lab.data.corpus.load_corpus", IndexError("planted"), TRAIN),
    ("mhc_lab.data.sources._library_files", UnicodeError("planted"), [*TRAIN, "data.val_fraction=0.31"]),
    ("mhc_lab.config.listing.settings", ValueError("planted"), ["list", "settings"]),
    ("mhc_lab.study.spec._row", RecursionError("planted"), ["ablate", "GRID", "--dry-run"]),
    ("mhc_lab.study.engine.plan", KeyError("planted"), ["ablate", "GRID", "--dry-run"]),
    ("mhc_lab.study.engine.run_cells", AssertionError("planted"), ["ablate", "GRID"]),
    ("mhc_lab.study.sweep_file.resolve_sweep", TypeError("planted"), ["sweep", "smoke", "--dry-run"]),
    ("mhc_lab.study.folder.StudyFolder.stored", KeyError("planted"), ["status", "g"]),
    ("mhc_lab.study.status.state", ZeroDivisionError("planted"), ["status", "g"]),
    ("mhc_lab.study.overview._overview", KeyError("planted"), ["status"]),
    ("mhc_lab.runs._run", TypeError("planted"), ["runs"]),
    ("mhc_lab.report.frame._cells", KeyError("planted"), ["export", "g", "--format", "csv"]),
    ("mhc_lab.report.tables.summarize", AssertionError("planted"), ["export", "g", "--format", "csv"]),
    ("mhc_lab.report.latex.render", ValueError("planted"), ["export", "g", "--format", "latex"]),
    ("mhc_lab.report.tables.provenance", NotImplementedError("planted"), ["export", "g", "--format", "csv"]),
    ("mhc_lab.analysis.retarget_command.evaluations", RuntimeError("planted"), ["retarget", "RUN"]),
    ("mhc_lab.analysis.sinkhorn_command.captured", KeyError("planted"), ["sinkhorn", "--checkpoint", "RUN"]),
    ("mhc_lab.tracking.sync.read_state", KeyError("planted"), ["sync"]),
    ("mhc_lab.doctor.examine", LookupError("planted"), ["doctor"]),
]


@pytest.mark.parametrize(("where", "bug", "command"), PLANTED, ids=[where for where, _, _ in PLANTED])
def test_a_bug_of_ours_is_seen(
    where: str,
    bug: Exception,
    command: list[str],
    studied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def planted(*_: Any, **__: Any) -> NoReturn:
        raise bug

    module, _, name = where.rpartition(".")
    monkeypatch.setattr(_resolved(module), name, planted)
    (run,) = (studied / "results" / "runs").glob("mhc-*")
    words = {"GRID": str(studied / "g.yaml"), "RUN": str(run)}
    typed = [words.get(word, word) for word in command]
    where_to = [] if command[0] == "list" else ["--results", str(studied / "results")]
    assert cli.main([*typed, *where_to]) == 1
    err = capsys.readouterr().err
    assert "Traceback (most recent call last)" in err
    assert "planted" in err
    assert err.splitlines()[-1].startswith("error: this is a bug of mhc-lab")


def _resolved(where: str) -> Any:
    """A module, or a class in one."""
    try:
        return importlib.import_module(where)
    except ModuleNotFoundError:
        module, _, name = where.rpartition(".")
        return getattr(importlib.import_module(module), name)


def test_twenty_are_planted() -> None:
    assert len(PLANTED) >= 20
