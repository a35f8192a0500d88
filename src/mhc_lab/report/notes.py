"""What a reader must know about a row: seeds that are missing, cells that test nothing, gaps within the noise."""

from __future__ import annotations

from typing import Any

import pandas as pd

from mhc_lab.report.frame import NOT_RUN, Study
from mhc_lab.report.stats import MIN_SEEDS, PairedGap
from mhc_lab.run_folder import ENDED

INSIDE_NOISE = "inside noise floor"
_ROW_SUMS_ONE = 1e-3  # how near 1 the forward gain is where H_res leaves equal streams as they are
EQUAL_STREAMS = 1e-4  # relative spread, as in the runs' own check
_MAX_REASON = 160


def row_notes(
    study: Study, row: dict[str, Any], seeds: list[int], gap: PairedGap | None, noise_floor: float | None
) -> list[str]:
    """The notes of one row, in order; `row` is its entry in study.json, `seeds` those that finished."""
    name = row["row"]
    cells = study.row_cells(name)
    notes = _lost_seeds(cells)
    if name != row["baseline"]:
        notes += _untested(study, row, gap) + _seeds_of_gap(seeds, gap)
    elif 0 < len(seeds) < MIN_SEEDS:
        notes.append(f"{_seeds(len(seeds))}: no interval")
    notes += _degenerate(cells, row)
    notes += _miscounted(cells)
    if row["control"]:
        notes.append(f"control arm: {study.design_of(name)} with another initialisation and data order")
    elif gap is not None and not gap.identical:
        if gap.constant:
            notes.append("the same gap in every seed: not tested")
        if noise_floor is not None and abs(gap.estimate.mean) <= noise_floor:
            notes.append(INSIDE_NOISE)
    if seeds and study.timing and name not in study.timing["rows"]:
        notes.append("ms/step from its training runs: the row is not in the timing pass")
    return notes


def _lost_seeds(cells: pd.DataFrame) -> list[str]:
    if cells.empty:
        return ["no runs in this study"]
    lost = cells[cells["status"] != "finished"]
    if lost.empty:
        return []
    what = [_what_happened(*cell) for cell in zip(lost["status"], lost["reason"], strict=True)]
    notes = [f"{what.count(words)} of {_seeds(len(cells))} {words}" for words in dict.fromkeys(what)]
    left = len(cells) - len(lost)
    return ["; ".join([*notes, f"means over {_seeds(left)}" if left else "no finished run"])]


def _untested(study: Study, row: dict[str, Any], gap: PairedGap | None) -> list[str]:
    """The control arm is not tested at all."""
    if gap is None or row["control"]:
        return []
    for name, of in ((row["row"], ""), (row["baseline"], " of the baseline")):
        if (study.row_cells(name)["status"] == "diverged").any():
            return [f"gap not tested: the seeds left{of} are the calm ones"]
    return []


def _what_happened(status: str, reason: object) -> str:
    if status == NOT_RUN:
        return "not run yet"
    lines = reason.strip().splitlines() if isinstance(reason, str) else []
    return f"{status}: {lines[0][:_MAX_REASON]}" if lines else status


def _seeds_of_gap(seeds: list[int], gap: PairedGap | None) -> list[str]:
    if not seeds:
        return []
    if gap is None:
        return ["no gap: no finished seed in common with the baseline"]
    few = gap.estimate.n < MIN_SEEDS
    if gap.estimate.n < len(seeds):
        return [f"gap over the {_seeds(gap.estimate.n)} in common with the baseline" + (": no interval" if few else "")]
    return [f"{_seeds(len(seeds))}: no interval"] if few else []


def _degenerate(cells: pd.DataFrame, row: dict[str, Any]) -> list[str]:
    measured = cells[cells["status"].isin(ENDED)]
    degenerate = measured[measured["degenerate"]]
    if degenerate.empty:
        return _never_parted(cells, row)
    everywhere = len(degenerate) == len(measured)
    word = "degenerate" if everywhere else f"degenerate in {len(degenerate)} of {_seeds(len(measured))}"
    spread = degenerate[["spread_perturbed", "spread_step10"]].max().max()
    n, gain = row["streams"], degenerate["gain_forward"].max()
    keeps_streams = row["h_res"] == "fixed" or abs(gain - 1) < _ROW_SUMS_ONE
    if row["h_post"] == "fixed" and keeps_streams:
        meaning, write = "the cell is the plain residual", "residual.h_post=dynamic"
    else:
        meaning = "the cell is a single stream with learned gains"
        write = f"residual.h_post=dynamic residual.h_post_home={2 - 1 / n:g} residual.h_post_away={1 - 1 / n:g}"
    return [
        f"{word}: streams stay equal (spread {spread:.1e}): {meaning}; break the symmetry with "
        f"residual.expand=scaled residual.expand_base=0.6 or a home write ({write})"
    ]


def _miscounted(cells: pd.DataFrame) -> list[str]:
    """A plugin's `cost` is a formula that nobody else checks."""
    wrong = cells.dropna(subset=["connection_parameters_by_formula"])
    if wrong.empty:
        return []
    said, counted = (int(wrong.iloc[0][f"connection_parameters{name}"]) for name in ("_by_formula", ""))
    return [f"parameters are counted ({counted} in the connections); the variant's cost() says {said}: check its FLOPs"]


def _never_parted(cells: pd.DataFrame, row: dict[str, Any]) -> list[str]:
    """Streams that could part and did not: a start so symmetric that all of them get the same gradient."""
    spread = cells.loc[cells["status"] == "finished", "stream_spread"].max()
    if row["streams"] == 1 or pd.isna(spread) or spread >= EQUAL_STREAMS:
        return []
    return [f"streams are still equal at the last step (spread {spread:.1e}): a single stream with learned gains"]


def _seeds(count: int) -> str:
    return "1 seed" if count == 1 else f"{count} seeds"
