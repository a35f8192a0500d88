"""An objective against each parameter by itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import PAPER
from mhc_lab.report.figures.style import variant_looks as hues
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, value, value_text
from mhc_lab.report.sweep.figures import marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "slices"
_MOST_WHISKERS = 200
_COLUMNS = 3
_MOST_PLACES = 12  # of a line: beyond these, the lowest in as many bins
_BINS = 8
_LEGEND_LETTERS = 90  # on a line over the figure


def draw(sweep: Sweep, objective: int = 0) -> Plot | Absent:
    """A panel a parameter. With `by`, a line through the lowest trials of each of its values."""
    metric = sweep.objectives[objective]
    name = NAME if objective == 0 else f"{NAME}_{metric.metric}"
    if not sweep.finite:
        return Absent(name, marks.nothing(sweep))
    shown = [p for p in sweep.parameters if p.key != sweep.by and any(p.key in t.params for t in sweep.finite)]
    if not shown:
        return Absent(name, f"no comparable trial has a parameter besides {sweep.by}; add one to the space")
    columns = min(_COLUMNS, len(shown))
    rows = math.ceil(len(shown) / columns)
    named = [value_text(choice) for choice in sweep.parameter(sweep.by).choices] if sweep.by else []
    heading = 0.2 * math.ceil(len(named) / _legend_columns(named)) if named else 0.15
    figure = Figure(figsize=(7.0, 2.55 * rows + heading), layout="constrained", facecolor=PAPER)
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    values = marks.values(sweep.finite, objective)
    limits = marks.readable(values, marks.kept(sweep, objective))
    whiskers = False
    for place, axes in enumerate(grid.flat):
        if place >= len(shown):
            axes.set_visible(False)
            continue
        parameter = shown[place]
        axes.set_ylim(*limits)
        axes.grid(True, axis="y")
        trials = [trial for trial in sweep.finite if parameter.key in trial.params]
        if len(sweep.finite) <= _MOST_WHISKERS:
            at = marks.scattered(parameter, trials)
            whiskers |= marks.seeds_spread(axes, sweep, trials, at, objective)
        marks.space_axis(axes, parameter)
        if sweep.by:
            _lines(axes, sweep, parameter, trials, objective)
        else:
            _points(axes, sweep, parameter, trials, objective)
        axes.set_xlabel(sweep.names[parameter.key])
        if place % columns == 0:
            axes.set_ylabel(metric.text.replace(" (", "\n("))
    _legend(figure)
    caption = f"{metric.name.capitalize()} against each parameter by itself: {marks.over(sweep, sweep.finite)}."
    caption += " Whiskers: lowest to highest seed." if whiskers else ""
    if sweep.by:
        caption += f" Lines: the lowest trial at each place, of each {sweep.names[sweep.by]}."
    elif objective == 0:
        caption += marks.marks_text(sweep)
    else:
        caption += f" Star: the best by {sweep.objectives[0].name}."
    caption += " The other parameters differ from point to point." if len(sweep.varied) > 1 else ""
    conditional = [sweep.names[p.key] for p in shown if any(p.key not in t.params for t in sweep.finite)]
    if conditional:
        caption += f" Only the trials that were asked for it: {', '.join(conditional)}."
    caption += marks.beyond_text(values, limits)
    return Plot(name, f"{metric.name.capitalize()} by parameter", caption, figure)


def _points(axes: Axes, sweep: Sweep, parameter: Parameter, trials: Sequence[SweepTrial], objective: int) -> None:
    across, up = marks.scattered(parameter, trials), marks.values(trials, objective)
    marks.points(axes, across, up, markersize=4 if len(trials) < 300 else 2.5)
    marks.marked(axes, sweep, list(zip(trials, across, up, strict=True)))


def _lines(axes: Axes, sweep: Sweep, parameter: Parameter, trials: Sequence[SweepTrial], objective: int) -> None:
    look = hues([value_text(choice) for choice in sweep.parameter(sweep.by).choices])
    bottom, top = axes.get_ylim()
    for choice in sweep.parameter(sweep.by).choices:
        own = [trial for trial in trials if trial.params.get(sweep.by) == choice]
        if not own:
            continue
        colour, marker = look[value_text(choice)]
        across, up = marks.scattered(parameter, own), marks.values(own, objective)
        marks.points(axes, across, up, color=colour, alpha=0.4, markersize=3)
        low = _lowest(parameter, own, objective)
        x = [marks.position(parameter, trial.params[parameter.key]) for trial in low]
        y = [min(value(trial, objective), top - 0.025 * (top - bottom)) for trial in low]
        axes.plot(x, y, marker=marker, color=colour, markersize=4.5, linewidth=1.2, label=value_text(choice))


def _lowest(parameter: Parameter, trials: Sequence[SweepTrial], objective: int) -> list[SweepTrial]:
    """The lowest trial at each place of the axis, or in each bin of it, from left to right."""

    def place(trial: SweepTrial) -> float:
        return parameter.place(trial.params[parameter.key])

    ordered = sorted(trials, key=place)
    few = parameter.kind == "choices" or len({place(trial) for trial in trials}) <= _MOST_PLACES
    bins = groupby(ordered, place if few else lambda trial: min(int(place(trial) * _BINS), _BINS - 1))
    return [min(members, key=lambda trial: value(trial, objective)) for _, members in bins]


def _legend_columns(names: Sequence[str]) -> int:
    """As many as fit over the figure: a column is as wide as the longest name and its line."""
    return max(1, min(len(names), 6, _LEGEND_LETTERS // (max(map(len, names)) + 7)))


def _legend(figure: Figure) -> None:
    handles = {
        str(handle.get_label()): handle for axes in figure.axes for handle in axes.get_legend_handles_labels()[0]
    }
    if handles:
        columns = _legend_columns(list(handles))
        figure.legend(list(handles.values()), list(handles), loc="outside upper right", ncols=columns)
