"""What the pruner saw: each trial's value as it trained."""

from __future__ import annotations

import math

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import INK, panels
from mhc_lab.report.sweep.data import Sweep, SweepTrial, count
from mhc_lab.report.sweep.figures import marks

NAME = "intermediate"


def draw(sweep: Sweep) -> Plot | Absent:
    """A line a trial over the training steps; pruned trials end with a cross."""
    curves = {trial.number: _finite(trial) for trial in sweep.trials}
    shown = [trial for trial in sweep.trials if curves[trial.number]]
    if not shown:
        return Absent(
            NAME, "no trial reported intermediate values; a pruner makes them do so (pruner in the sweep file)"
        )
    figure, (axes,) = panels(height=3.0)
    every = [value for trial in shown for _, value in curves[trial.number]]
    limits = marks.readable(every, [curves[trial.number][-1][1] for trial in shown if trial.finite])
    axes.set_ylim(*limits)
    best = sweep.ranked[0] if sweep.ranked else None
    fade = 0.6 if len(shown) < 60 else 0.25
    first: dict[str, bool] = {}
    for trial in shown:
        steps, values = zip(*curves[trial.number], strict=True)
        pruned = trial.state == "pruned"
        name = "pruned" if pruned else "complete" if trial.state == "complete" else trial.state
        colour = marks.PRUNED if pruned else marks.TRIAL if trial.finite else marks.LOST
        label = None if first.get(name) else name
        first[name] = True
        axes.plot(steps, values, color=colour, linewidth=0.9, alpha=fade, label=label, marker="o", markersize=1.8)
        if pruned:
            axes.plot([steps[-1]], [min(values[-1], limits[1])], "x", color=colour, markersize=4, markeredgewidth=1.2)
        if trial is best:
            axes.plot(steps, values, color=INK, linewidth=1.8, zorder=4, label="best")
    axes.set_xlabel("step")
    axes.set_ylabel(sweep.objectives[0].text.replace(" (", "\n("))
    axes.legend(loc="upper right")
    pruned_count = sum(trial.state == "pruned" for trial in shown)
    caption = (
        f"What {count(len(shown), 'trial')} told the pruner as they trained; {pruned_count} were pruned (crosses)."
    )
    caption += " Values above the axis are cut off." if max(every) > limits[1] else ""
    return Plot(NAME, "Intermediate values", caption, figure)


def _finite(trial: SweepTrial) -> list[tuple[int, float]]:
    return [(step, value) for step, value in sorted(trial.intermediate.items()) if math.isfinite(value)]
