"""A study's cells -> one line a row: means, gaps to the baseline with their tests, cost, and notes."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from mhc_lab.report import notes, stats
from mhc_lab.report.frame import Study
from mhc_lab.run_folder import ENDED

COLUMNS = (
    "row",
    "baseline",
    "variant",
    "h_res",
    "h_pre",
    "h_post",
    "streams",
    "cells",
    "seeds",
    "val_loss",
    "val_loss_ci95",
    "loss_gap",
    "loss_gap_ci95_low",
    "loss_gap_ci95_high",
    "loss_gap_bca95_low",
    "loss_gap_bca95_high",
    "identical",
    "p_t",
    "p_holm",
    "p_sign_flip",
    "distinguishable",
    "p_equivalent",
    "equivalent",
    "p_no_worse",
    "no_worse",
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
    "ms_ratio_spread",
    "peak_memory_mb",
    "peak_memory_mb_low",
    "note",
)
GAPS = (0.01, 0.02, 0.05, 0.1)  # nats per token, of the power estimate
_MEANS = ("gain_forward", "gain_backward", "composite_gain_forward", "composite_gain_backward")
_KINDS = (
    dict.fromkeys(("streams", "cells", "seeds", "parameters", "flops_per_token"), "Int64")
    | dict.fromkeys(("row", "baseline", "variant", "h_res", "h_pre", "h_post", "note"), "string")
    | dict.fromkeys(("identical", "distinguishable", "equivalent", "no_worse"), "boolean")
)

Losses = Mapping[str, Mapping[int, float]]  # by row and seed


@dataclass(frozen=True)
class Power:
    """How many seeds would tell a gap from noise, at Holm's strictest step over `tests` rows.

    `sd` is the median over the tested rows of the standard deviation of their paired differences, `control_sd` that
    of the control arm's; `seeds` and `control_seeds` are the answers for each of `gaps`, None beyond all reason.
    """

    tests: int
    gaps: tuple[float, ...]
    sd: float
    seeds: tuple[int | None, ...]
    control_sd: float | None
    control_seeds: tuple[int | None, ...]


@dataclass(frozen=True)
class Best:
    """The row with the lowest loss gap of those with one baseline, which it is distinguishable from.

    `lead` is its paired gap to the `runner_up`.
    """

    row: str
    runner_up: str
    lead: stats.PairedGap


@dataclass(frozen=True)
class Summary:
    """`frame` has one line a row of the study, in its order, and COLUMNS; blanks are NA.

    `notes` are those of each row, in the frame's order; `tested` the rows that Holm's adjustment runs over;
    `noise_floors` those of `stats.noise_floor` by baseline, where there is a control arm; `best` by baseline, where
    a row can be marked so. `margin` is the user's, of equivalence.
    """

    frame: pd.DataFrame
    notes: list[list[str]]
    tested: list[str]
    noise_floors: dict[str, float]
    best: dict[str, Best]
    power: Power | None
    margin: float | None


def summarize(study: Study, *, margin: float | None = None, gaps: Sequence[float] = GAPS) -> Summary:
    """Summarize a study by row.

    val_loss, loss_gap and the gains are means over the seeds that finished. What tells of stability also
    counts the runs that diverged, or the least stable row would look the calmest: max_grad_norm is the largest
    over all steps and seeds, loss_spikes the mean number a run. peak_memory_mb is the largest over seeds,
    peak_memory_mb_low the smallest.
    ms_per_step and ms_ratio come from the timing pass; where there is none, ms_per_step is the mean of what
    the runs measured and ms_ratio is blank. val_loss_ci95 is the half width of the interval.

    With a `margin` (nats per token) each row is tested for being equivalent to its baseline within it, and for being
    no worse by more. `gaps` are those that the power estimate is made for.
    """
    losses = {row["row"]: losses_by_seed(study, row["row"]) for row in study.rows}
    floors = _noise_floors(study, losses)
    compared = {row["row"]: row["baseline"] for row in study.rows if row["row"] != row["baseline"]}
    found = {name: stats.paired_gap(losses[name], losses[baseline]) for name, baseline in compared.items()}
    differences = {
        name: list(stats.paired_differences(losses[name], losses[baseline]).values())
        for name, baseline in compared.items()
    }
    tests = _tests(study, found, differences, margin)

    lines, all_notes = [], []
    for row in study.rows:
        name, baseline = row["row"], row["baseline"]
        gap = found.get(name)
        row_notes = notes.row_notes(study, row, list(losses[name]), gap, floors.get(baseline))
        line = {key: row[key] for key in ("row", "baseline", "variant", "h_res", "h_pre", "h_post", "streams")}
        line |= {"paper_loss_gap": row["paper_loss_gap"], "cells": len(study.row_cells(name))}
        line |= _quality(losses[name]) | _stability(study, name) | _cost(study, name)
        line |= _gap(gap, differences[name]) if name in compared else _no_gap(losses[name])
        lines.append(line | tests.get(name, {}) | {"note": "; ".join(row_notes)})
        all_notes.append(row_notes)
    frame = pd.DataFrame(lines, columns=list(COLUMNS)).astype({name: _KINDS.get(name, "float64") for name in COLUMNS})
    tested = [name for name, test in tests.items() if test.get("p_holm") is not None]
    power = _power(study, losses, [differences[name] for name in tested], gaps)
    return Summary(frame, all_notes, tested, floors, _best(study, frame, losses), power, margin)


def losses_by_seed(study: Study, row: str) -> dict[int, float]:
    """Validation loss of the seeds of a row that finished."""
    finished = _finished(study, row)
    assert finished["val_loss"].notna().all(), f"row {row}: a finished run without a validation loss"
    return {int(seed): float(loss) for seed, loss in zip(finished["seed"], finished["val_loss"], strict=True)}


def _finished(study: Study, row: str) -> pd.DataFrame:
    cells = study.row_cells(row)
    return cells[cells["status"] == "finished"]


def _noise_floors(study: Study, losses: Losses) -> dict[str, float]:
    floors = {}
    for baseline in study.baselines:
        control = study.control_of(baseline)
        floor = stats.noise_floor(losses[control], losses[study.design_of(control)]) if control else None
        if floor is not None:
            floors[baseline] = floor
    return floors


def _tests(
    study: Study,
    gaps: Mapping[str, stats.PairedGap | None],
    differences: Mapping[str, Sequence[float]],
    margin: float | None,
) -> dict[str, dict[str, Any]]:
    """The columns of the tests; p-values are adjusted over the rows of the table, but that of sign flips.

    The seeds that survived a divergence, of the row or of its baseline, are the calm ones: their gap is shown, but not
    put to the test. Nor is the control arm, which is no design of its own.
    """
    controls = {row["row"] for row in study.rows if row["control"]}
    wild = {row["row"] for row in study.rows if (study.row_cells(row["row"])["status"] == "diverged").any()}
    calm = {
        name: gap
        for name, gap in gaps.items()
        if gap and name not in controls and not {name, study.baseline_of(name)} & wild
    }
    # With few seeds Holm would leave nothing of the coarse p-values of sign flips.
    tests: dict[str, dict[str, Any]] = {name: {"p_sign_flip": stats.sign_flip(differences[name])} for name in calm}
    apart = {name: gap.p for name, gap in calm.items() if gap.p is not None}
    for name, p in zip(apart, stats.holm(list(apart.values())), strict=True):
        tests[name] |= {"p_holm": p, "distinguishable": p < stats.ALPHA}
    for name, gap in calm.items():
        if gap.identical:
            tests[name]["distinguishable"] = False
    if margin is None:
        return tests
    claims = {}
    for name in calm:
        claim = stats.equivalence(differences[name], margin)
        if claim is not None:
            claims[name] = claim
    for claimed, key in (("equivalent", "p_equivalent"), ("no_worse", "p_no_worse")):
        adjusted = stats.holm([getattr(claim, key) for claim in claims.values()])
        for name, p in zip(claims, adjusted, strict=True):
            tests[name] |= {key: p, claimed: p < stats.ALPHA}
    return tests


def _quality(losses: Mapping[int, float]) -> dict[str, Any]:
    if not losses:
        return {"seeds": 0}
    estimate = stats.mean_interval(list(losses.values()))
    return {"seeds": estimate.n, "val_loss": estimate.mean, "val_loss_ci95": estimate.half_width}


def _no_gap(losses: Mapping[int, float]) -> dict[str, Any]:
    return {"loss_gap": 0.0 if losses else None}


def _gap(gap: stats.PairedGap | None, differences: Sequence[float]) -> dict[str, Any]:
    if gap is None:
        return {}
    mean, half = gap.estimate.mean, gap.estimate.half_width
    if half is None:
        return {"loss_gap": mean, "identical": gap.identical}
    bca_low, bca_high = stats.bca_interval(differences) or (None, None)
    return {
        "loss_gap": mean,
        "identical": gap.identical,
        "loss_gap_ci95_low": mean - half,
        "loss_gap_ci95_high": mean + half,
        "loss_gap_bca95_low": bca_low,
        "loss_gap_bca95_high": bca_high,
        "p_t": gap.p,
    }


def _stability(study: Study, row: str) -> dict[str, Any]:
    cells = study.row_cells(row)
    ended = cells[cells["status"].isin(ENDED)]
    finished = _finished(study, row)
    line = {"max_grad_norm": ended["max_grad_norm"].max(), "loss_spikes": ended["loss_spikes"].mean()}
    return line | {key: finished[key].mean() for key in _MEANS}


def _cost(study: Study, row: str) -> dict[str, Any]:
    cells, finished = study.row_cells(row), _finished(study, row)
    line: dict[str, Any] = {key: cells[key].max() for key in ("parameters", "flops_per_token")}  # alike for all seeds
    memory = finished["peak_memory_mb"]
    line |= {"peak_memory_mb": memory.max(), "peak_memory_mb_low": memory.min()}
    timed = study.timed(row)
    if timed is None:
        return line | {"ms_per_step": finished["ms_per_step"].mean()}
    return line | {
        "ms_per_step": timed["ms_per_step"],
        "ms_ratio": study.time_ratio(row),
        "ms_ratio_spread": study.time_spread(row),
    }


def _best(study: Study, frame: pd.DataFrame, losses: Losses) -> dict[str, Best]:
    """By baseline. Where the lowest loss is not distinguishable from the baseline's, no row is marked."""
    controls = {row["row"] for row in study.rows if row["control"]}
    best = {}
    for baseline in study.baselines:
        rows = frame[(frame["baseline"] == baseline) & frame["loss_gap"].notna() & ~frame["row"].isin(controls)]
        ranked = rows.sort_values("loss_gap", kind="stable")
        if ranked.empty or not ranked["distinguishable"].fillna(False).iloc[0] or ranked["loss_gap"].iloc[0] >= 0:
            continue
        name, runner_up = ranked["row"].iloc[0], ranked["row"].iloc[1]  # the baseline is one of them
        lead = stats.paired_gap(losses[name], losses[runner_up])
        if lead is not None and lead.estimate.mean < 0:  # gaps to the baseline may be over other seeds
            best[baseline] = Best(name, runner_up, lead)
    return best


def _power(study: Study, losses: Losses, tested: Sequence[Sequence[float]], gaps: Sequence[float]) -> Power | None:
    """`tested` are the differences of each tested row."""
    if not tested:
        return None
    sd = statistics.median(map(statistics.stdev, tested))
    controls = [(losses[r["row"]], losses[study.design_of(r["row"])]) for r in study.rows if r["control"]]
    scatter = [stats.paired_differences(control, design).values() for control, design in controls]
    measured = [statistics.stdev(differences) for differences in scatter if len(differences) > 1]
    control_sd = statistics.median(measured) if measured else None
    return Power(
        len(tested),
        tuple(gaps),
        sd,
        tuple(stats.seeds_needed(gap, sd, tests=len(tested)) for gap in gaps),
        control_sd,
        () if control_sd is None else tuple(stats.seeds_needed(gap, control_sd, tests=len(tested)) for gap in gaps),
    )
