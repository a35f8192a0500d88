"""What a table says, in words: which rows can be told from the baseline, which cannot, and what it would take."""

from __future__ import annotations

import pandas as pd

from mhc_lab.report.stats import MIN_SEEDS
from mhc_lab.report.summary import Summary
from mhc_lab.report.texts import p_value, with_interval

UNIT = "nats per token"


def verdict(summary: Summary) -> list[str]:
    """One sentence a finding, the rows that are told apart first; of the rows of each baseline by themselves."""
    frame = summary.frame
    lines: list[str] = []
    for baseline, own in frame.groupby("baseline", sort=False):
        rows = own[(own["row"] != baseline) & own["loss_gap"].notna()]
        lines += [_told(row) for _, row in rows[rows["distinguishable"].fillna(False)].iterrows()]
        lines += _untold(rows, str(baseline), summary)
        identical = rows[rows["identical"].fillna(False)]["row"].tolist()
        if identical:
            lines.append(f"{_names(identical)}: the same as {baseline} by construction.")
    lost = frame[(frame["seeds"] == 0)]["row"].tolist()
    if lost:
        lines.append(f"{_names(lost)}: no finished run.")
    return lines or ["There is nothing to compare: one row."]


def _told(row: pd.Series) -> str:
    half = (row["loss_gap_ci95_high"] - row["loss_gap_ci95_low"]) / 2
    better = "better" if row["loss_gap"] < 0 else "worse"
    p = f"p = {p_value(row['p_holm'])}".replace("= <", "<")
    return f"{row['row']} is {with_interval(abs(row['loss_gap']), half)} {UNIT} {better} than {row['baseline']} ({p})."


def _untold(rows: pd.DataFrame, baseline: str, summary: Summary) -> list[str]:
    """The rows that were tested without being told apart, and those that could not be."""
    apart = rows["distinguishable"].fillna(False) | rows["identical"].fillna(False)
    open_rows = rows[~apart]
    tested = open_rows[open_rows["row"].isin(summary.tested)]
    few = open_rows[open_rows["seeds"] < MIN_SEEDS]["row"].tolist()
    lines = []
    if not tested.empty:
        seeds = int(tested["seeds"].min())
        lines.append(f"{_names(tested['row'].tolist())} cannot be told from {baseline} with {seeds} seeds.")
        largest = float(tested["loss_gap"].abs().max())
        lines += _needed(summary, largest)
    if few:
        lines.append(
            f"{_names(few)}: nothing is tested with fewer than {MIN_SEEDS} seeds; five (--seeds 0-4) are a start."
        )
    return lines


def _needed(summary: Summary, gap: float) -> list[str]:
    """How many seeds a gap of about that size takes, by the scatter of the paired differences at hand."""
    power = summary.power
    if power is None:
        return []
    known = [(size, seeds) for size, seeds in zip(power.gaps, power.seeds, strict=True) if seeds is not None]
    if not known:
        return ["No number of seeds worth having would tell such gaps from noise: train longer, or a larger model."]
    size, seeds = min(known, key=lambda pair: abs(pair[0] - gap))
    return [f"To tell a gap of {size:g} {UNIT} from noise would take about {seeds} seeds."]


def _names(rows: list[str]) -> str:
    return rows[0] if len(rows) == 1 else f"{', '.join(rows[:-1])} and {rows[-1]}"
