"""A study's runs as a pandas frame, one line a cell, read from study.json and each run's record.json alone."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from mhc_lab.errors import LabError, nearest
from mhc_lab.run_folder import RunFolder, read_json, runs_dir

NOT_RUN = "not run"  # the status of a cell whose run has no record yet
ROW = ("variant", "h_res", "h_pre", "h_post", "streams")
CELL = ("row", "seed", "run_id", "status", "reason", *ROW)
METRICS = (
    "train_loss",
    "val_loss",
    "bits_per_byte",
    "grad_norm",
    "max_grad_norm",
    "loss_spikes",
    "gain_forward",
    "gain_backward",
    "composite_gain_forward",
    "composite_gain_backward",
    "ds_error",
    "stream_spread",
    "tokens_per_second",
    "ms_per_step",
    "peak_memory_mb",
    "steps",
)
DEGENERACY = ("spread_perturbed", "spread_step10")
COST = ("parameters", "connection_parameters", "flops_per_token", "connection_flops_per_token")
NUMBERS = (*METRICS, *DEGENERACY, *COST, "seconds", "probe_seconds", "probe_fraction")
ORIGIN = ("corpus_fingerprint", "code_fingerprint", "started", "ended")
ENVIRONMENT = ("python", "torch", "lightning", "mhc_lab", "platform", "device", "threads")


@dataclass(frozen=True)
class Study:
    """A study as it lies in its folder: study.json, timing.json where there is one, and its cells."""

    folder: Path
    spec: dict[str, Any]
    timing: dict[str, Any] | None
    cells: pd.DataFrame

    @property
    def name(self) -> str:
        return str(self.spec["study"])

    @property
    def baseline(self) -> str:
        return str(self.spec["baseline"])

    @property
    def control(self) -> str | None:
        return next((row["row"] for row in self.spec["rows"] if row["control"]), None)

    def row_cells(self, row: str) -> pd.DataFrame:
        """The cells of one row, in order of their seeds."""
        return self.cells[self.cells["row"] == row].sort_values("seed")


def read_study(results: Path, study: str) -> pd.DataFrame:
    """One line a cell of `results`/<study>, in the order of study.json.

    Columns: row, seed, run_id, status (finished, diverged, failed, killed, or `not run`), reason, variant,
    h_res, h_pre, h_post, streams, degenerate, then NUMBERS (NaN where not measured), ORIGIN and ENVIRONMENT.
    Raises LabError for a study that is not there or has no finished run.
    """
    return load(results, study).cells


def load(results: Path, study: str) -> Study:
    """The whole study. Raises LabError as `read_study` does."""
    folder = results / study
    spec = read_json(folder / "study.json")
    if spec is None:
        known = [file.parent.name for file in results.glob("*/study.json")]
        raise LabError(f"no study '{study}' in {results}; {nearest(study, known)}")
    rows = {row["row"]: row for row in spec["rows"]}
    assert spec["baseline"] in rows, f"{folder}: the baseline is not a row"
    cells = _cells(runs_dir(results), rows, spec["cells"])
    if not (cells["status"] == "finished").any():
        counts = ", ".join(f"{n} {status}" for status, n in cells["status"].value_counts().items())
        raise LabError(f"study '{study}' has no finished run yet ({counts or 'no cells'}); run it first")
    return Study(folder, spec, read_json(folder / "timing.json"), cells)


def _cells(runs: Path, rows: dict[str, dict[str, Any]], cells: list[dict[str, Any]]) -> pd.DataFrame:
    lines = []
    for cell in cells:
        row = rows[cell["row"]]
        line = {key: cell[key] for key in ("row", "seed", "run_id")}
        line |= _outcome(RunFolder(runs / cell["run_id"]).record())
        line |= {key: row[key] for key in ROW}
        lines.append(line)
    frame = pd.DataFrame(lines, columns=[*CELL, "degenerate", *NUMBERS, *ORIGIN, *ENVIRONMENT])
    frame[list(NUMBERS)] = frame[list(NUMBERS)].astype(float)
    frame["threads"] = frame["threads"].astype("Int64")
    return frame


def _outcome(record: dict[str, Any] | None) -> dict[str, Any]:
    """A record, flat. One written for a process that died has no measurements."""
    if record is None:
        return {"status": NOT_RUN, "reason": None, "degenerate": False}
    flat = {key: record.get(key) for key in ("status", "reason", *ORIGIN, "seconds", "probe_seconds", "probe_fraction")}
    for part, keys in (("metrics", METRICS), ("degenerate", DEGENERACY), ("cost", COST), ("environment", ENVIRONMENT)):
        values = record.get(part) or {}
        flat |= {key: values.get(key) for key in keys}
    flat["degenerate"] = bool((record.get("degenerate") or {}).get("degenerate"))
    return flat
