"""The first objective over two parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import PAPER, panels
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial
from mhc_lab.report.sweep.figures import marks
from mhc_lab.report.sweep.importance import Importances

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "contour"
DEFAULT = ("residual.t_max", "residual.streams")
_MIN_PLACES = 12  # different points of the plane, for an interpolation to mean something
_GRID = 320
_MIN_LEVELS = 3  # different values of each parameter


def draw(sweep: Sweep, importances: Importances, pair: tuple[str, str] | None = None) -> Plot | Absent:
    """The trials over the plane of two parameters, coloured by value; between enough of them an interpolation."""
    if not sweep.finite:
        return Absent(NAME, marks.nothing(sweep))
    chosen = _pair(sweep, importances, pair)
    if chosen is None:
        return Absent(NAME, "fewer than two parameters with an order (numbers) varied; add one to the space")
    first, second = chosen
    trials = [trial for trial in sweep.finite if first.key in trial.params and second.key in trial.params]
    if not trials:
        return Absent(NAME, f"no comparable trial has both {first.key} and {second.key}")
    values = marks.values(trials)
    low, high = min(values), min(marks.readable(values)[1], max(values))
    figure, (axes,) = panels(height=3.6, width=5.6)
    axes.grid(False)
    marks.space_axis(axes, first)
    marks.space_axis(axes, second, upright=True)
    interpolated = _interpolate(axes, first, second, trials, values, (low, high))
    # Uprights and levels alike are true positions: no scatter among choices, or the plane would not fit the points.
    x, y = (np.array([marks.position(p, trial.params[p.key]) for trial in trials]) for p in (first, second))
    order = np.argsort(values)[::-1]  # the best on top
    dots = axes.scatter(
        x[order], y[order], c=np.array(values)[order], cmap=marks.SCALE, vmin=low, vmax=high,
        s=26, edgecolors=PAPER, linewidths=0.7, zorder=3, clip_on=False,
    )  # fmt: skip
    marks.marked(axes, sweep, list(zip(trials, x.tolist(), y.tolist(), strict=True)))
    axes.set_xlabel(sweep.names[first.key])
    axes.set_ylabel(sweep.names[second.key])
    bar = figure.colorbar(dots, ax=axes, pad=0.02, extend="max" if max(values) > high else "neither")
    bar.set_label(sweep.objectives[0].text)
    bar.outline.set_visible(False)
    title = f"{sweep.names[first.key]} and {sweep.names[second.key]}"
    caption = f"{sweep.objectives[0].name.capitalize()} over {title}: {marks.over(sweep, trials)}; dark is low."
    caption += " Linear interpolation between the trials, none beyond them." if interpolated else ""
    if not interpolated:
        caption += (
            f" Points alone: an interpolation takes {_MIN_PLACES} different places, {_MIN_LEVELS} levels each way."
        )
    caption += marks.marks_text(sweep)
    caption += " The other parameters differ from point to point." if len(sweep.varied) > 2 else ""
    return Plot(NAME, title, caption, figure)


def _pair(sweep: Sweep, found: Importances, wanted: tuple[str, str] | None) -> tuple[Parameter, Parameter] | None:
    able = {p.key: p for p in sweep.varied if p.ordered}
    for pair in (wanted, DEFAULT):
        if pair and all(key in able for key in pair):
            return able[pair[0]], able[pair[1]]
    shares = {one.parameter.key: one.fanova for one in found.parameters}
    best = sorted(able.values(), key=lambda p: -shares.get(p.key, 0.0))[:2]
    return (best[0], best[1]) if len(best) == 2 else None


def _interpolate(
    axes: Axes,
    first: Parameter,
    second: Parameter,
    trials: Sequence[SweepTrial],
    values: Sequence[float],
    limits: tuple[float, float],
) -> bool:
    """Filled contours between the places of the trials, straight on the scales searched; trials in one place by their
    mean. Nothing beyond the convex hull."""
    from scipy.interpolate import LinearNDInterpolator
    from scipy.spatial import QhullError

    places: dict[tuple[float, float], list[float]] = {}
    for trial, one in zip(trials, np.clip(values, *limits).tolist(), strict=True):
        at = (first.place(trial.params[first.key]), second.place(trial.params[second.key]))
        places.setdefault(at, []).append(one)
    unit = np.array(list(places))
    levels = min(len(set(unit[:, 0])), len(set(unit[:, 1])))
    if len(places) < _MIN_PLACES or levels < _MIN_LEVELS or limits[0] == limits[1]:
        return False
    try:
        plane = LinearNDInterpolator(unit, [float(np.mean(members)) for members in places.values()])
    except QhullError:  # all on one line
        return False
    across, up = (np.linspace(low, high, _GRID) for low, high in zip(unit.min(axis=0), unit.max(axis=0), strict=True))
    heights = np.ma.masked_invalid(plane(*np.meshgrid(across, up)))
    x = [first.inverse(at) for at in across]
    y = [second.inverse(at) for at in up]
    axes.contourf(x, y, heights, levels=np.linspace(*limits, 13), cmap=marks.SCALE, alpha=0.55, zorder=1)
    return True
