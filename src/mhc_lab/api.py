"""The stable face of mhc_lab for Python: compose, train, ablate, load, summarize, table.

These names and what they return stay as they are from version to version; the rest of the package may move. Mistakes
are `mhc_lab.errors.LabError`, in one line that says how to fix them. Importing this module imports neither torch nor
Optuna.

    from mhc_lab import api

    config = api.compose(["residual=mhc", "data=synthetic", "trainer.max_steps=50"])
    record = api.train(config)                          # a finished run is not run again
    study = api.ablate("demo", seeds=[0, 1, 2], overrides=["trainer.max_steps=50"], workers=2)
    study.cells                                         # a DataFrame, one line a run
    api.summarize(study)                                # a DataFrame, one line a row, with gaps and intervals
    print(api.table(study))                             # Markdown
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhc_lab.config import RunConfig, compose

if TYPE_CHECKING:
    import pandas as pd

    from mhc_lab.report.frame import Study

__all__ = ["ablate", "compose", "load", "summarize", "table", "train"]


def train(config: RunConfig, results: Path | str = "results") -> dict[str, Any]:
    """Train one configuration and return its record, the content of `results`/runs/<run id>/record.json.

    `record["status"]` is finished, diverged, failed or killed; `record["metrics"]["val_loss"]` is in nats per token. A
    run that has a result is not run again. Raises LabError for a corpus or device that is not there, for a run that
    another process works on, and where the result is one of other code.
    """
    from mhc_lab.data.corpus import corpus_fingerprint
    from mhc_lab.errors import LabError
    from mhc_lab.identity.ledger import named
    from mhc_lab.run_folder import RunFolder
    from mhc_lab.training.launch import launch

    folder = RunFolder.create(Path(results), config, corpus_fingerprint(config))
    if names := folder.other_code():
        raise LabError(f"{folder.path} was made with other code than now ({named(names)}): remove it to run it again")
    record = folder.record()
    return record if record is not None and folder.ended() else launch(folder)


def ablate(
    grid: str,
    *,
    seeds: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    study: str | None = None,
    workers: int | None = None,
    results: Path | str = "results",
) -> Study:
    """Run what a grid, by name or file, lacks; print and export its table; return the study.

    As `mhc-lab ablate`. Raises LabError for bad input, and RunsFailed where runs have no result (the table is written).
    """
    from mhc_lab.study.engine import ablate as run_grid

    where = Path(results)
    folder = run_grid(grid, seeds=seeds, overrides=overrides, study=study, workers=workers, results=where)
    return load(folder.name, where)


def load(study: str, results: Path | str = "results") -> Study:
    """A study that has been run: `cells` is a DataFrame with one line a run, `rows` what each row is.

    Raises LabError for a study that is not there or has no finished run.
    """
    from mhc_lab.report.frame import load as read

    return read(Path(results), study)


def summarize(study: Study) -> pd.DataFrame:
    """One line a row, by the row's name: val_loss, loss_gap and its interval (nats per token), p_holm, gains, cost."""
    from mhc_lab.report.summary import summarize as summary

    return summary(study).frame.set_index("row")


def table(study: Study) -> str:
    """The comparison table with its notes, as Markdown."""
    from mhc_lab.report.layout import lay_out
    from mhc_lab.report.markdown import render
    from mhc_lab.report.summary import summarize as summary

    return render(lay_out(study, summary(study)))
