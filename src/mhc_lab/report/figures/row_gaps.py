"""The final loss gaps of rows as figures draw them, and an axis on which most of them can be read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from mhc_lab.report import stats
from mhc_lab.report.figures.plot import Material
from mhc_lab.report.summary import losses_by_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FAR = 20.0  # times the median row's reach: beyond, a row would flatten all others
_BARS = 1.5  # times the reach of means and seeds that intervals may add; those of 3 seeds are very wide
NO_GAP = "no row beside its baseline has a seed that both finished; run the study's other rows"


@dataclass(frozen=True)
class RowGap:
    """Validation loss minus the baseline's: `mean` with the ends of its 95 % interval (None with fewer than 3 seeds)
    and the differences by seed."""

    row: str
    mean: float
    interval: tuple[float, float] | None
    seeds: tuple[float, ...]
    distinguishable: bool
    identical: bool
    paper: float | None


def row_gaps(material: Material, rows: Iterable[str]) -> dict[str, RowGap]:
    """Of those rows that have a seed in common with their baselines, as the table has them."""
    study = material.study
    frame = material.summary.frame.set_index("row")
    found = {}
    for row in rows:
        losses, baseline = (losses_by_seed(study, name) for name in (row, study.baseline_of(row)))
        seeds = tuple(stats.paired_differences(losses, baseline).values())
        if not seeds:
            continue
        entry: dict[Any, Any] = frame.loc[row].to_dict()
        ends = (entry["loss_gap_ci95_low"], entry["loss_gap_ci95_high"])
        paper, apart = entry["paper_loss_gap"], entry["distinguishable"]
        found[row] = RowGap(
            row,
            float(entry["loss_gap"]),
            None if pd.isna(ends[0]) else ends,
            seeds,
            distinguishable=bool(pd.notna(apart) and apart),
            identical=bool(entry["identical"]),
            paper=None if pd.isna(paper) else float(paper),
        )
    return found


def farthest(reaches: Sequence[float]) -> float:
    """The |gap| up to which rows are drawn to scale: 20 times the median reach of those that differ at all. A reach
    counts noise, so that one good row among rows that are not apart from 0 stays in sight."""
    some = [reach for reach in reaches if reach > stats.ROUNDING]
    return FAR * float(np.median(some)) if some else stats.ROUNDING


def readable(gaps: Sequence[RowGap], also: Sequence[float] = (), *, seeds: bool = True) -> tuple[float, float]:
    """The ends of an axis with 0 and `also` for the means, intervals and `seeds` of all rows but those whose gap is
    many times what the median row reaches; 0.01 to both sides where all gaps are 0."""
    most = farthest([max(map(abs, gap.seeds)) for gap in gaps])
    near = [gap for gap in gaps if abs(gap.mean) <= most]
    points = [0.0, *also, *(gap.mean for gap in near)]
    points += list(np.clip([seed for gap in near for seed in gap.seeds if seeds], -most, most))
    reach = max(map(abs, points))
    ends = [end for gap in near for end in gap.interval or ()]
    points += list(np.clip(ends, min(points) - _BARS * reach, max(points) + _BARS * reach))
    low, high = float(min(points)), float(max(points))
    margin = 0.05 * (high - low) or 0.01
    return low - margin, high + margin


def draw_interval(axes: Axes, place: float, interval: tuple[float, float], *, upright: bool, **look: Any) -> None:
    """A bar over the interval at a `place` of the other axis, with an arrow at an end that lies beyond its axis.

    Set the limits before.
    """
    low, high = axes.get_ylim() if upright else axes.get_xlim()
    seen = np.clip(interval, low, high)
    axes.plot(*(([place] * 2, seen) if upright else (seen, [place] * 2)), **look)
    arrow = {"arrowstyle": "->", "color": look["color"], "linewidth": look["linewidth"], "shrinkA": 0, "shrinkB": 0}
    for beyond, edge, side in ((interval[0] < low, low, 1), (interval[1] > high, high, -1)):
        if beyond:
            tip = (place, edge) if upright else (edge, place)
            tail = (0, 8 * side) if upright else (8 * side, 0)
            axes.annotate("", tip, tail, textcoords="offset points", arrowprops=arrow)


def cut_text(gaps: Iterable[RowGap], limits: tuple[float, float]) -> str:
    """What a caption says of the intervals of means on the axis that go on beyond its ends."""
    low, high = limits
    shown = [gap.interval for gap in gaps if gap.interval and low <= gap.mean <= high]
    cut = any(interval[0] < low or interval[1] > high for interval in shown)
    return " Bars with an arrow go on beyond the axis." if cut else ""


def interval_text(gaps: Iterable[RowGap]) -> str:
    """What a caption says of the intervals; they are there from 3 seeds on."""
    counts = [len(gap.seeds) for gap in gaps]
    if max(counts) < stats.MIN_SEEDS:
        return "(no interval with fewer than 3)"
    return "with its 95 % paired t interval" + (" (from 3)" if min(counts) < stats.MIN_SEEDS else "")
