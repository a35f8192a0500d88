"""The curves of a row's seeds as one line with its band, also where some seeds ended before the others."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mhc_lab.report import stats
from mhc_lab.report.curves import Array, Training
from mhc_lab.report.frame import Study
from mhc_lab.run_folder import ENDED

SMOOTH_FROM = 100  # points; up to here a curve is drawn as it is
SMOOTH_PART = 0.02  # of the points, the window of the moving average
LOG_FROM = 30.0


@dataclass(frozen=True)
class SeedCurves:
    """Points `x` [k] with the mean over the seeds that have a value there, the ends of its 95 % interval (NaN with
    fewer than 3), and whether all seeds have one. `ends` are where seeds diverged or their curves ended early."""

    x: Array
    mean: Array
    low: Array
    high: Array
    whole: NDArray[np.bool_]
    ends: list[tuple[float, float]]

    def bands(self, early: float) -> Array:
        """The finite ends of its intervals behind this part of its points."""
        start = int(early * len(self.x))
        ends: Array = np.concatenate([self.low[start:], self.high[start:]])
        return ends[np.isfinite(ends)]

    def thinned(self, most: int) -> SeedCurves:
        """At most so many of its points, evenly, the first and the last among them."""
        at = np.unique(np.linspace(0, len(self.x) - 1, min(most, len(self.x))).round().astype(int))
        return SeedCurves(self.x[at], self.mean[at], self.low[at], self.high[at], self.whole[at], self.ends)


def over_seeds(
    curves: Mapping[int, tuple[Array, Array]], diverged: Collection[int] = (), *, log: bool = False
) -> SeedCurves | None:
    """One line of the curves (x, y) by seed; None without a finite value. Points with y NaN or infinite are missing.

    A seed that `diverged` may have no curve at all. With `log`, mean and interval are those of the logarithms, and
    what is not above 0 is missing.
    """
    seeds = curves.keys() | set(diverged)
    clean = {seed: _clean(*curve, log=log) for seed, curve in curves.items()}
    clean = {seed: (x, y) for seed, (x, y) in clean.items() if len(x)}
    if not clean:
        return None
    grid = np.unique(np.concatenate([x for x, _ in clean.values()]))
    # A step that one seed passed without a value, because it logs others, is not a point of the line.
    for x, _ in clean.values():
        grid = grid[np.isin(grid, x) | (grid > x[-1])]
    values = np.full((len(clean), len(grid)), np.nan)
    for place, (x, y) in enumerate(clean.values()):
        values[place, np.isin(grid, x)] = y[np.isin(x, grid)]
    mean, low, high = (np.full(len(grid), np.nan) for _ in range(3))
    alive = np.isfinite(values)
    for those in np.unique(alive, axis=1).T:
        at = (alive == those[:, None]).all(axis=0)
        mean[at], half = stats.band(values[those][:, at])
        if half is not None:
            low[at], high[at] = mean[at] - half, mean[at] + half
    ends = [(float(x[-1]), float(y[-1])) for seed, (x, y) in clean.items() if seed in diverged or x[-1] < grid[-1]]
    if log:
        mean, low, high = (np.exp(np.clip(part, -600, 600)) for part in (mean, low, high))
        ends = [(x, float(np.exp(y))) for x, y in ends]
    return SeedCurves(grid, mean, low, high, alive.sum(axis=0) == len(seeds), ends)


def smooth(values: Array) -> Array:
    """A centred moving average over about 2 % of the points [k], its window narrower towards both ends; up to 100
    points as they are."""
    k = len(values)
    if k <= SMOOTH_FROM:
        return values
    half = np.minimum(max(1, round(SMOOTH_PART * k / 2)), np.minimum(np.arange(k), np.arange(k)[::-1]))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    places = np.arange(k)
    averaged: Array = (sums[places + half + 1] - sums[places - half]) / (2 * half + 1)
    return averaged


def points_text(runs: Iterable[Training], points: int) -> str:
    """What a caption says of the points of curves with up to this many: what a logged one is, and of `smooth`."""
    apart = sorted({int(np.median(np.diff(run.steps, prepend=0))) for run in runs})
    steps = f"{apart[0]}–{apart[-1]}" if apart[0] < apart[-1] else f"{apart[0]}"
    said = "Each point is a single step" if steps == "1" else f"Each point is the mean over the {steps} steps before it"
    if points > SMOOTH_FROM:
        window = 2 * max(1, round(SMOOTH_PART * points / 2)) + 1
        said += f"; each seed's curve is a centred moving average over {window} of {points} points"
    return f"{said}."


def positive_limits(lines: Sequence[SeedCurves]) -> tuple[float, float, bool]:
    """The ends of an axis for lines of positive numbers, and whether to make it logarithmic: from a factor of 30 on.

    Surges by more than three powers of ten beyond nearly all points are cut, and bands far beyond the lines.
    """
    means = np.concatenate([line.mean for line in lines])
    common = np.quantile(means, (0.02, 0.98)) * (1e-3, 1e3)
    low, high = max(means.min(), common[0]), min(means.max(), common[1])
    log = bool(high / low > LOG_FROM)
    if log:
        return float(low / 2), float(high * 2), True
    bands = np.concatenate([part[np.isfinite(part)] for line in lines for part in (line.low, line.high)])
    margin = 0.3 * (high - low) or 0.1 * high
    seen = np.clip(np.concatenate([bands, means]), low - margin, high + margin)
    edge = 0.05 * np.ptp(seen) or 0.1 * high
    return float(max(seen.min() - edge, 0.0)), float(seen.max() + edge), False


def diverged_seeds(study: Study, row: str) -> set[int]:
    cells = study.row_cells(row)
    return {int(seed) for seed in cells["seed"][cells["status"] == "diverged"]}


def row_text(study: Study, row: str) -> str:
    """A row's name, and how many of its seeds diverged or are missing."""
    status = study.row_cells(row)["status"]
    diverged, there = int((status == "diverged").sum()), int(status.isin(ENDED).sum())
    said = [f"{diverged} of {len(status)} diverged"] if diverged else []
    if there < len(status):
        said.append(f"{there} of {len(status)} seeds")
    return f"{row} ({', '.join(said)})" if said else row


def seeds_text(counts: Iterable[int]) -> str:
    """Of the seeds of several rows: "5 seeds" or "3–5 seeds"."""
    low, high = (found := sorted(counts))[0], found[-1]
    return f"{low}–{high} seeds" if low < high else f"{high} seed{'s' if high != 1 else ''}"


def bands_text(counts: Collection[int], what: str) -> str:
    """What a caption says of bands of these rows; they are there from 3 seeds on."""
    if max(counts) < stats.MIN_SEEDS:
        return "no bands with fewer than 3 seeds"
    return f"bands are {what}{', of rows with 3 seeds or more' if min(counts) < stats.MIN_SEEDS else ''}"


def lost_text(lines: Iterable[SeedCurves], seed: str = "a seed") -> str:
    if not any(line.ends for line in lines):
        return ""
    return f" × marks where {seed} ended early; from the first on a line is dotted, the mean of the others."


def _clean(x: Array, y: Array, *, log: bool) -> tuple[Array, Array]:
    """The points with a value, in order, the last of those with one x."""
    with np.errstate(invalid="ignore", divide="ignore"):
        y = np.log(y) if log else y
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    _, last = np.unique(x[::-1], return_index=True)
    order = len(x) - 1 - last
    return x[order], y[order]
