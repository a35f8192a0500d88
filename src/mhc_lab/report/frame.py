"""A study's runs as a pandas frame, one line a cell, read from study.json and each run's record.json alone."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from mhc_lab.errors import LabError, nearest
from mhc_lab.files import TIMING, damaged, read_json
from mhc_lab.run_folder import RunFolder, runs_dir

NOT_RUN = "not run"  # the status of a cell whose run has no record yet
# What a row's entry in study.json may lack.
_SINCE: dict[str, Any] = {"overrides": [], "control": False, "paper_loss_gap": None, "tuned": None}
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
COST = (
    "parameters",
    "connection_parameters",
    "connection_parameters_by_formula",
    "flops_per_token",
    "connection_flops_per_token",
)
NUMBERS = (*METRICS, *DEGENERACY, *COST, "seconds", "probe_seconds", "probe_fraction")
ORIGIN = ("corpus_fingerprint", "code_fingerprint", "started", "ended")
ENVIRONMENT = ("python", "torch", "lightning", "mhc_lab", "platform", "device", "threads", "backend", "strategy")


@dataclass(frozen=True)
class Study:
    """A study as it lies in its folder: study.json, timing.json where there is one, and its cells.

    `runs` is the folder of all run folders. Several studies in one table are a Study too (`combine`).
    """

    folder: Path
    runs: Path
    spec: dict[str, Any]
    timing: dict[str, Any] | None
    cells: pd.DataFrame

    @property
    def name(self) -> str:
        return str(self.spec["study"])

    @property
    def title(self) -> str:
        return str(self.spec["title"])

    @property
    def baseline(self) -> str:
        """That of the rows which name none of their own."""
        return str(self.spec["baseline"])

    @property
    def rows(self) -> list[dict[str, Any]]:
        """row, overrides, baseline, control, variant, h_res, h_pre, h_post, streams, paper_loss_gap, tuned of each.

        `repeats`, of a control arm, where another baseline was chosen: the row that it repeats.
        """
        rows: list[dict[str, Any]] = self.spec["rows"]
        return rows

    def baseline_of(self, row: str) -> str:
        """The row that the gap of `row` is measured from."""
        return next(str(entry["baseline"]) for entry in self.rows if entry["row"] == row)

    @property
    def baselines(self) -> list[str]:
        """Those that rows are measured from, in order; most studies have one."""
        return list(dict.fromkeys(str(row["baseline"]) for row in self.rows))

    def control_of(self, baseline: str) -> str | None:
        """The control arm among the rows measured from a baseline: a design with another initialisation and order."""
        return next((row["row"] for row in self.rows if row["control"] and row["baseline"] == baseline), None)

    def design_of(self, control: str) -> str:
        """The row that a control arm repeats: the baseline, or the former one where another was chosen."""
        entry = next(row for row in self.rows if row["row"] == control)
        return str(entry.get("repeats", entry["baseline"]))

    def timed(self, row: str) -> dict[str, Any] | None:
        """The row's entry of the timing pass, if it has one."""
        entry: dict[str, Any] | None = (self.timing or {"rows": {}})["rows"].get(row)
        return entry

    def time_ratio(self, row: str) -> float | None:
        """Time of a training step beside that of the row's baseline.

        Where both were timed beside a third row, it is the ratio of their ratios.
        """
        own, base = self.timed(row), self.timed(self.baseline_of(row))
        if own is None:
            return None
        if own["baseline"] == self.baseline_of(row):
            return float(own["ms_ratio"])
        if base is None or base["baseline"] != own["baseline"]:
            return None
        return float(own["ms_ratio"]) / float(base["ms_ratio"])

    def time_spread(self, row: str) -> float | None:
        """Half of what the middle half of the pairs' ratios spans; None where it was not recorded, or not so timed."""
        own = self.timed(row)
        return own.get("ms_ratio_spread") if own is not None and own["baseline"] == self.baseline_of(row) else None

    def row_cells(self, row: str) -> pd.DataFrame:
        """The cells of one row, in order of their seeds."""
        return self._by_row.get(row, self.cells.iloc[:0])

    @cached_property
    def _by_row(self) -> dict[str, pd.DataFrame]:
        cells = self.cells.sort_values("seed", kind="stable")
        return {str(row): own for row, own in cells.groupby("row", sort=False)}


def read_study(results: Path, study: str) -> pd.DataFrame:
    """One line a cell of `results`/<study>, in the order of study.json.

    Columns: row, seed, run_id, status (finished, diverged, failed, killed, or `not run`), reason, variant,
    h_res, h_pre, h_post, streams, degenerate, then NUMBERS (NaN where not measured), ORIGIN and ENVIRONMENT.
    Raises LabError for a study that is not there or has no finished run.
    """
    return load(results, study).cells


def load(results: Path, study: str) -> Study:
    """The whole study. Raises LabError as `read_study` does."""
    from mhc_lab.study.folder import StudyFolder  # which reads reports' metrics

    folder = results / study
    known = [file.parent.name for file in results.glob("*/study.json")]
    spec = StudyFolder(results, study).stored() if study in known else None
    if spec is None:
        raise LabError(f"no study '{study}' in {results}; {nearest(study, known)}")
    if spec.get("kind") == "sweep":
        raise LabError(f"study '{study}' is a sweep: export it by itself, mhc-lab export {study}")
    if any("baseline" not in row for row in spec["rows"]):
        raise LabError(f"study '{study}' was made by an earlier mhc-lab: repeat its command, {spec['command']} --keep")
    spec["rows"] = [{**_SINCE, **row} for row in spec["rows"]]
    rows = {row["row"]: row for row in spec["rows"]}
    strange = [row["baseline"] for row in rows.values() if row["baseline"] not in rows]
    strange += [cell["row"] for cell in spec["cells"] if cell["row"] not in rows]
    if strange or spec["baseline"] not in rows:
        raise damaged(folder / "study.json", f"'{(strange or [spec['baseline']])[0]}' is no row")
    cells = _cells(runs_dir(results), rows, spec["cells"])
    if not (cells["status"] == "finished").any():
        counts = ", ".join(f"{n} {status}" for status, n in cells["status"].value_counts().items())
        raise LabError(f"study '{study}' has no finished run ({counts or 'no cells'}), so there is nothing to compare")
    return Study(folder, runs_dir(results), spec, _timing(folder), cells)


def _timing(folder: Path) -> dict[str, Any] | None:
    """timing.json; one of an earlier version, which does not say what each row alternated with, counts for nothing."""
    timing = read_json(folder / "timing.json", TIMING)
    return timing if timing and all("baseline" in entry for entry in timing["rows"].values()) else None


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
