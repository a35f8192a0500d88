"""A study's cells -> one line a row: means, gaps to the baseline with their tests, cost, and notes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from mhc_lab.report import notes, stats
from mhc_lab.report.frame import Study
from mhc_lab.run_folder import ENDED

COLUMNS = (
    "row",
    "variant",
    "h_res",
    "h_pre",
    "h_post",
    "streams",
    "seeds",
    "val_loss",
    "val_loss_ci95",
    "loss_gap",
    "loss_gap_ci95_low",
    "loss_gap_ci95_high",
    "distinguishable",
    "paper_loss_gap",
    "max_grad_norm",
    "loss_spikes",
    "gain_forward",
    "gain_backward",
    "composite_gain_forward",
    "composite_gain_backward",
    "parameters",
    "flops_per_token",
    "ms_per_step",
    "ms_ratio",
    "peak_memory_mb",
    "note",
)
_MEANS = ("gain_forward", "gain_backward", "composite_gain_forward", "composite_gain_backward")
_INTEGERS = ("streams", "seeds", "parameters", "flops_per_token")
_WORDS = ("row", "variant", "h_res", "h_pre", "h_post", "note")


@dataclass(frozen=True)
class Summary:
    """`frame` has one line a row of the study, in its order, and COLUMNS; blanks are NA.

    `notes` are those of each row, in the frame's order; `tested` the rows that Holm's adjustment runs over;
    `noise_floor` that of `stats.noise_floor`, None without a control arm.
    """

    frame: pd.DataFrame
    notes: list[list[str]]
    tested: list[str]
    noise_floor: float | None


def summarize(study: Study) -> Summary:
    """Summarize a study by row.

    val_loss, loss_gap and the gains are means over the seeds that finished. What tells of stability also
    counts the runs that diverged, or the least stable row would look the calmest: max_grad_norm is the largest
    over all steps and seeds, loss_spikes the mean number a run. peak_memory_mb is the largest over seeds.
    ms_per_step and ms_ratio come from the timing pass; where there is none, ms_per_step is the mean of what
    the runs measured and ms_ratio is blank. val_loss_ci95 is the half width of the interval.
    """
    names = [row["row"] for row in study.spec["rows"]]
    losses = {name: losses_by_seed(study, name) for name in names}
    baseline = losses[study.baseline]
    floor = stats.noise_floor(losses[study.control], baseline) if study.control else None
    gaps = {name: stats.paired_gap(losses[name], baseline) for name in names if name != study.baseline}

    # The seeds that survived a divergence are the calm ones: their gap is shown, but not put to the test.
    calm = [
        name for name in names if name != study.control and not (study.row_cells(name)["status"] == "diverged").any()
    ]
    tests = {name: gap.p for name in calm if (gap := gaps.get(name)) and gap.p is not None}
    adjusted = dict(zip(tests, stats.holm(list(tests.values())), strict=True))

    lines, all_notes = [], []
    for row in study.spec["rows"]:
        name = row["row"]
        gap = gaps.get(name)
        row_notes = notes.row_notes(study, row, list(losses[name]), gap, floor)
        line = {key: row[key] for key in ("row", "variant", "h_res", "h_pre", "h_post", "streams", "paper_loss_gap")}
        line |= _quality(losses[name]) | _stability(study, name) | _cost(study, name)
        line |= _gap(gap) if name != study.baseline else {"loss_gap": 0.0 if baseline else None}
        if name in adjusted:
            line["distinguishable"] = adjusted[name] < stats.ALPHA
        elif gap is not None and gap.identical and name != study.control:
            line["distinguishable"] = False
        lines.append(line | {"note": "; ".join(row_notes)})
        all_notes.append(row_notes)
    return Summary(_frame(lines), all_notes, list(tests), floor)


def losses_by_seed(study: Study, row: str) -> dict[int, float]:
    """Validation loss of the seeds of a row that finished."""
    finished = _finished(study, row)
    assert finished["val_loss"].notna().all(), f"row {row}: a finished run without a validation loss"
    return {int(seed): float(loss) for seed, loss in zip(finished["seed"], finished["val_loss"], strict=True)}


def _finished(study: Study, row: str) -> pd.DataFrame:
    cells = study.row_cells(row)
    return cells[cells["status"] == "finished"]


def _quality(losses: dict[int, float]) -> dict[str, Any]:
    if not losses:
        return {"seeds": 0}
    estimate = stats.mean_interval(list(losses.values()))
    return {"seeds": estimate.n, "val_loss": estimate.mean, "val_loss_ci95": estimate.half_width}


def _gap(gap: stats.PairedGap | None) -> dict[str, Any]:
    if gap is None:
        return {}
    mean, half = gap.estimate.mean, gap.estimate.half_width
    if half is None:
        return {"loss_gap": mean}
    return {"loss_gap": mean, "loss_gap_ci95_low": mean - half, "loss_gap_ci95_high": mean + half}


def _stability(study: Study, row: str) -> dict[str, Any]:
    cells = study.row_cells(row)
    ended = cells[cells["status"].isin(ENDED)]
    finished = _finished(study, row)
    line = {"max_grad_norm": ended["max_grad_norm"].max(), "loss_spikes": ended["loss_spikes"].mean()}
    return line | {key: finished[key].mean() for key in _MEANS}


def _cost(study: Study, row: str) -> dict[str, Any]:
    cells, finished = study.row_cells(row), _finished(study, row)
    line: dict[str, Any] = {key: cells[key].max() for key in ("parameters", "flops_per_token")}  # alike for all seeds
    line["peak_memory_mb"] = finished["peak_memory_mb"].max()
    timed = study.timing["rows"].get(row) if study.timing else None
    if timed:
        return line | {key: timed[key] for key in ("ms_per_step", "ms_ratio")}
    return line | {"ms_per_step": finished["ms_per_step"].mean()}


def _frame(lines: list[dict[str, Any]]) -> pd.DataFrame:
    frame = pd.DataFrame(lines, columns=list(COLUMNS))
    kinds = dict.fromkeys(_INTEGERS, "Int64") | dict.fromkeys(_WORDS, "string") | {"distinguishable": "boolean"}
    return frame.astype({name: kinds.get(name, "float64") for name in COLUMNS})
