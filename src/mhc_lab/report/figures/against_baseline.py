"""Training loss of every row against its baseline's at the same steps: what figures over steps and tokens share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter

from mhc_lab.report.curves import Array, Training
from mhc_lab.report.figures.labels import EndLabel
from mhc_lab.report.figures.line_panels import BANDS, Scene, lay_out, with_bands
from mhc_lab.report.figures.paper import Reference
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.row_gaps import FAR, farthest
from mhc_lab.report.figures.seed_curves import (
    SeedCurves,
    bands_text,
    diverged_seeds,
    lost_text,
    over_seeds,
    points_text,
    row_text,
    seeds_text,
    smooth,
)
from mhc_lab.report.figures.style import INK, REFERENCE, drawn_rows, row_styles
from mhc_lab.report.texts import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EARLY = 0.2  # of the points, where losses differ by many times what they do at the end
_SURGE = 4.0  # times a row's usual distance from the baseline
_ROOM = 3.0  # times its height that the axis may grow for the paper's number


@dataclass(frozen=True)
class Comparison:
    """Of a row's losses [k] with its baseline's; `equal` where they are the same. `said` is how a caption says it,
    `margin` the least that an axis shows beyond its lines."""

    compare: Callable[[Array, Array], Array]
    equal: float
    said: str
    ylabel: str
    margin: float


def draw(
    material: Material,
    name: str,
    title: str,
    comparison: Comparison,
    *,
    after: str | None,
    paper: Reference | None = None,
    tokens: Mapping[str, int] | None = None,
) -> Plot | Absent:
    """A line a row: the mean over seeds of what `comparison` makes of losses at the same steps, on the same batches
    but for a control arm's. Over tokens where those of a step are given by baseline.

    `after` is the figure of the paper that it follows, `paper` a number of the paper's on the same scale.
    """
    study = material.study
    rows, left_out = drawn_rows(study)
    rows = [row for row in rows if row != study.baseline_of(row)]
    lines: dict[str, SeedCurves] = {}
    points, seeds, runs = 0, [], []
    for row in rows:
        own, base = material.training[row], material.training[study.baseline_of(row)]
        scale = tokens[study.baseline_of(row)] if tokens is not None else 1
        curves = _compared(own, base, comparison, scale)
        line = over_seeds(curves, diverged_seeds(study, row) | diverged_seeds(study, study.baseline_of(row)))
        if line is not None:
            lines[row] = line
            points = max(points, *(len(x) for x, _ in curves.values()))
            seeds.append(len(curves))
            runs += [side[seed] for seed in curves for side in (own, base)]
    if not lines:
        return Absent(name, "no row and its baseline logged training steps with the same seed; run both")

    ylim, reference = _limits(list(lines.values()), comparison, paper)
    own_name = row_text(study, study.baselines[0]) if len(study.baselines) == 1 else "own baseline"
    labels = [EndLabel(comparison.equal, own_name)]
    if paper is not None and reference:
        labels.append(EndLabel(paper.value, paper.label, colour=REFERENCE))

    def behind(axes: Axes) -> None:
        axes.axhline(comparison.equal, color=INK, linewidth=0.8)
        if paper is not None and reference:
            axes.axhline(paper.value, color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 2)))
        if tokens is not None:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))

    scene = Scene(
        xlim=(0, max(1.0, *(line.x[-1] for line in lines.values()))),
        ylim=ylim,
        log=False,
        xlabel="training step" if tokens is None else "training tokens",
        ylabel=comparison.ylabel,
        labels=labels,
        behind=behind,
        early=_EARLY,
    )
    figure, cut = lay_out(lines, row_styles(study), {row: row_text(study, row) for row in lines}, scene)
    missing = [row for row in rows if row not in lines]
    lost = lost_text(lines.values(), "a seed of the row or of its baseline")
    caption = (
        f"Training loss of each row {comparison.said} at the same step, mean over {seeds_text(seeds)}; "
        f"{bands_text(seeds, '95 % paired t intervals at each step')}.{lost} "
        + (f"After the paper's {after}. " if after else "")
        + f"{points_text(runs, points)} The axis is chosen for the last {100 * (1 - _EARLY):.0f} % of the steps.{cut}"
    )
    if paper is not None and not reference:
        caption += f" The paper's number, {paper.label}, lies outside."
    caption += left_out + (f" Without a curve: {', '.join(missing)}." if missing else "")
    return Plot(name, title, caption, figure)


def _compared(
    row: Mapping[int, Training], baseline: Mapping[int, Training], comparison: Comparison, scale: int
) -> dict[int, tuple[Array, Array]]:
    """By seed, `scale` times the steps that both logged, and the row compared with the baseline there, smoothed."""
    found = {}
    for seed in sorted(row.keys() & baseline.keys()):
        steps, at_row, at_baseline = np.intersect1d(row[seed].steps, baseline[seed].steps, return_indices=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            values = comparison.compare(row[seed].train_loss[at_row], baseline[seed].train_loss[at_baseline])
        finite = np.isfinite(values)
        if finite.any():
            found[seed] = scale * steps[finite], smooth(values[finite])
    return found


def _limits(
    lines: Sequence[SeedCurves], comparison: Comparison, paper: Reference | None
) -> tuple[tuple[float, float], bool]:
    """The ends of the axis, and whether the paper's number is to be drawn and lies between them."""
    usual = [_usual(line, comparison.equal) for line in lines]
    most = farthest(usual)
    near = [(line, own) for line, own in zip(lines, usual, strict=True) if own <= most]
    points = [np.full(1, comparison.equal)]
    for line, own in near:
        # Surges, a row's own and those of a seed before it diverges, do not decide on the axis.
        late = line.mean[int(_EARLY * len(line.x)) :]
        points.append(late[np.abs(late - comparison.equal) <= _SURGE * max(own, most / FAR)])
    low, high = float(np.concatenate(points).min()), float(np.concatenate(points).max())
    if len(lines) <= BANDS:
        low, high = with_bands([line for line, _ in near], (low, high), early=_EARLY)
    reference = False
    if paper is not None:
        both = min(low, paper.value), max(high, paper.value)
        reference = both[1] - both[0] <= _ROOM * (high - low) or high == low
        low, high = both if reference else (low, high)
    margin = 0.25 * (high - low) or comparison.margin
    return (low - margin, high + margin), reference


def _usual(line: SeedCurves, equal: float) -> float:
    """The median over late points of how far the line or its band is from `equal`."""
    reach = np.fmax(np.abs(line.mean - equal), np.fmax(np.abs(line.low - equal), np.abs(line.high - equal)))
    return float(np.median(reach[int(_EARLY * len(line.x)) :]))
