"""Two objectives against each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from mhc_lab.report.figures.labels import PointLabel, label_points
from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import INK, PAPER, panels
from mhc_lab.report.sweep.data import Sweep, SweepTrial
from mhc_lab.report.sweep.figures import marks
from mhc_lab.report.sweep.ranking import estimate, non_dominated

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAME = "pareto"
_MOST_NAMED = 12


def draw(sweep: Sweep) -> Plot | Absent:
    """The comparable trials by the second objective (across) and the first (up), the front as steps."""
    if len(sweep.objectives) != 2:
        return Absent(NAME, f"it takes two objectives; this sweep has {len(sweep.objectives)}")
    trials = sweep.finite
    if not trials:
        return Absent(NAME, marks.nothing(sweep))
    figure, (axes,) = panels(height=3.6)
    up, across = (marks.values(trials, objective) for objective in (0, 1))
    front = sorted(non_dominated(sweep), key=lambda trial: marks.values([trial], 1))
    start = sweep.start
    keep = [*front, *([start] if start is not None and start.finite else [])]
    limits, sides = (
        marks.readable(
            marks.values(trials, objective), [end for trial in keep for end in _ends(sweep, trial, objective)]
        )
        for objective in (0, 1)
    )
    axes.set_ylim(*limits)
    axes.set_xlim(*sides)
    inside = [place for place, x in enumerate(across) if x <= sides[1]]
    marks.points(axes, [across[i] for i in inside], [up[i] for i in inside], alpha=0.35)
    at = [(marks.values([trial], 1)[0], marks.values([trial])[0]) for trial in front]
    for (x0, y0), (x1, y1) in pairwise(at):
        axes.plot([x0, x1, x1], [y0, y0, y1], color=INK, linewidth=0.9, linestyle=(0, (4, 2)), zorder=2)
    for trial, (x, y) in zip(front, at, strict=True):
        upright, level = (estimate(sweep, trial, objective).half_width for objective in (0, 1))
        axes.errorbar(x, y, yerr=upright, xerr=level, color=marks.TRIAL, elinewidth=1.0, capsize=0, zorder=2)
    axes.plot(
        *zip(*at, strict=True), "o", color=marks.TRIAL, markersize=6, markeredgecolor=PAPER, zorder=4, label="front"
    )
    if start is not None and start.finite:  # of two objectives there is no best
        marks.marked(axes, sweep, [(start, marks.values([start], 1)[0], marks.values([start])[0])], with_best=False)
    axes.set_xlabel(sweep.objectives[1].text)
    axes.set_ylabel(sweep.objectives[0].text.replace(" (", "\n("))
    axes.legend(loc="upper right")
    _name(figure, axes, sweep, front, at)
    caption = (
        f"{sweep.objectives[0].name.capitalize()} against {sweep.objectives[1].name}: {marks.over(sweep, trials)}. "
        f"The dashed line joins the {len(front)} that no other beats in both, by the means; numbers are trials."
    )
    intervals = any(estimate(sweep, trial).half_width is not None for trial in front)
    caption += " Bars: 95 % t intervals over seeds." if intervals else ""
    caption += " Diamond: the starting point." if start is not None and start.finite else ""
    caption += marks.beyond_text(up, limits)
    right = len(trials) - len(inside)
    caption += f" {right} further right." if right else ""
    return Plot(NAME, "Pareto front", caption, figure)


def _ends(sweep: Sweep, trial: SweepTrial, objective: int) -> tuple[float, float]:
    found = estimate(sweep, trial, objective)
    return found.mean - (found.half_width or 0), found.mean + (found.half_width or 0)


def _name(
    figure: Figure, axes: Axes, sweep: Sweep, front: Sequence[SweepTrial], at: Sequence[tuple[float, float]]
) -> None:
    """The numbers of the front's trials, of many every so many."""
    figure.draw_without_rendering()  # the layout's own size of the axes
    box = axes.get_window_extent()
    size = (box.width / figure.dpi, box.height / figure.dpi)
    step = -(-len(front) // _MOST_NAMED)
    named = list(zip(front, at, strict=True))[::step]
    labels = [PointLabel(x, y, str(trial.number), marks.TRIAL) for trial, (x, y) in named]
    bars = []
    for trial, (x, y) in zip(front, at, strict=True):
        (bottom, top), (left, right) = (_ends(sweep, trial, objective) for objective in (0, 1))
        bars += [((x, bottom), (x, top)), ((left, y), (right, y))]
    others = [point for point in at if point not in {place for _, place in named}]
    label_points(axes, labels, others, bars, size)
