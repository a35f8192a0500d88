"""Every trial as a line through all parameters to its value."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import Normal, Stroke

from mhc_lab.report.figures.labels import wrapped
from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import INK, MUTED, PAPER, REFERENCE
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, value_text
from mhc_lab.report.sweep.figures import marks

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "parallel"
_MISSING = -0.14  # where a line passes an axis that its trial was not asked for
_MOST_LABELS = 12
_CHARACTERS = 84  # that stand side by side across the figure


def draw(sweep: Sweep) -> Plot | Absent:
    """An upright axis a parameter, from the low to the high end of the space, and one for the objective."""
    trials = sweep.finite
    if not trials:
        return Absent(NAME, marks.nothing(sweep))
    if len(sweep.varied) < 2:
        return Absent(NAME, "fewer than two parameters varied, so the slices say it all")
    shown = sweep.varied
    values = marks.values(trials)
    start = sweep.start
    _, top = marks.readable(values, marks.kept(sweep))
    low, high = min(values), min(top, max(values))
    span = high - low or 1.0
    lines = {
        trial.number: _line(shown, trial, (min(at, high) - low) / span)
        for trial, at in zip(trials, values, strict=True)
    }

    figure = Figure(figsize=(7.0, 3.3), layout="constrained", facecolor=PAPER)
    axes = figure.subplots()
    axes.set_axis_off()
    order = sorted(trials, key=lambda trial: -(trial.values or (0.0,))[0])  # the best on top
    collection = LineCollection(
        [lines[trial.number] for trial in order],
        cmap=marks.SCALE,
        linewidths=np.linspace(0.6, 1.4, len(order)).tolist(),
        alpha=0.75 if len(order) < 100 else 0.35,
        zorder=1,
    )
    collection.set_array(np.array([min((trial.values or (0.0,))[0], high) for trial in order]))
    collection.set_clim(low, high if high > low else low + 1)
    axes.add_collection(collection)
    for trial, colour, width, name in ((start, REFERENCE, 1.8, "starting point"), (sweep.ranked[0], INK, 2.0, "best")):
        if trial is not None and trial.number in lines:
            style = "-" if colour == INK else (0, (4, 1.5))
            apart = [Stroke(linewidth=width + 2, foreground=PAPER), Normal()]
            axes.plot(
                *lines[trial.number].T,
                color=colour,
                linewidth=width,
                linestyle=style,
                zorder=3,
                label=name,
                path_effects=apart,
            )
    width = min(max(round(_CHARACTERS / (len(shown) + 1)), 6), 16)
    missing = any(parameter.key not in trial.params for parameter in shown for trial in trials)
    for place, parameter in enumerate(shown):
        _axis(axes, place, sweep.names[parameter.key], _ticks(parameter), width, left=True)
        if missing and any(parameter.key not in trial.params for trial in trials):
            axes.text(place, _MISSING - 0.03, marks.NOT_ASKED, ha="center", va="top", fontsize=6.5, color=MUTED)
    ends = [
        (0.0, f"{low:.3f}"),
        (0.5, f"{(low + high) / 2:.3f}"),
        (1.0, f"{'≥ ' if max(values) > high else ''}{high:.3f}"),
    ]
    _axis(axes, len(shown), sweep.objectives[0].name, ends if high > low else ends[:1], width, left=False)
    axes.set_xlim(-0.45, len(shown) + 0.45)
    axes.set_ylim(-0.32 if missing else -0.05, 1.17)
    axes.legend(loc="lower right", bbox_to_anchor=(1, -0.08), ncols=2)
    caption = (
        f"A line a trial, from its parameters to its {sweep.objectives[0].name}: {marks.over(sweep, trials)}; "
        "dark is low. Axes are the space that was searched, on its scales."
    )
    caption += " A line below an axis was not asked for that parameter." if missing else ""
    return Plot(NAME, "All parameters at once", caption, figure)


def _line(shown: tuple[Parameter, ...], trial: SweepTrial, end: float) -> np.ndarray:
    heights = [p.place(trial.params[p.key]) if p.key in trial.params else _MISSING for p in shown]
    return np.array([(place, height) for place, height in enumerate([*heights, end])], dtype=float)


def _axis(axes: Axes, place: int, name: str, ticks: list[tuple[float, str]], width: int, *, left: bool) -> None:
    axes.plot([place, place], [0, 1], color=INK, linewidth=0.8, zorder=2)
    axes.text(place, 1.06, wrapped(name, width), ha="center", va="bottom", fontsize=8, parse_math=False)
    for height, text in ticks:
        side = -1 if left else 1
        axes.plot([place, place + 0.03 * side], [height, height], color=INK, linewidth=0.8, zorder=2)
        box = {"facecolor": PAPER, "edgecolor": "none", "alpha": 0.75, "pad": 0.6}
        look: dict[str, Any] = {
            "ha": "right" if left else "left",
            "va": "center",
            "fontsize": 7,
            "zorder": 4,
            "bbox": box,
        }
        axes.text(place + 0.05 * side, height, marks.shortened(text, width + 2), parse_math=False, **look)


def _ticks(parameter: Parameter) -> list[tuple[float, str]]:
    if parameter.kind == "choices":
        step = max(1, len(parameter.choices) // _MOST_LABELS)
        return [(parameter.place(choice), value_text(choice)) for choice in parameter.choices[::step]]
    assert parameter.low is not None and parameter.high is not None
    middle = (parameter.low * parameter.high) ** 0.5 if parameter.log else (parameter.low + parameter.high) / 2
    inside = round(middle) if parameter.kind == "int" else float(f"{middle:.2g}")
    return [(parameter.place(at), value_text(at)) for at in dict.fromkeys((parameter.low, inside, parameter.high))]
