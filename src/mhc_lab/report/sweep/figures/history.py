"""The trials in their order, and the best so far."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import INK, PAPER
from mhc_lab.report.sweep.data import Sweep
from mhc_lab.report.sweep.figures import marks

NAME = "history"


def draw(sweep: Sweep) -> Plot | Absent:
    """Every comparable trial at its number, the lowest so far as steps; the others in a strip below."""
    trials = sweep.finite
    if not trials:
        return Absent(NAME, marks.nothing(sweep))
    lost = {
        "diverged": [trial.number for trial in sweep.trials if trial.diverged],
        "pruned": [trial.number for trial in sweep.trials if trial.state == "pruned"],
        "failed": [trial.number for trial in sweep.trials if trial.state == "failed"],
    }
    strips = [(name, numbers) for name, numbers in lost.items() if numbers]
    strip = 0.17 * len(strips) + 0.08 if strips else 0.0
    figure = Figure(figsize=(7.0, 2.9 + strip), layout="constrained", facecolor=PAPER)
    if strips:
        axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[2.6, strip])
        axes.tick_params(axis="x", labelbottom=False, length=0)
    else:
        axes = below = figure.subplots()
    axes.grid(True, axis="y")

    numbers, values = [trial.number for trial in trials], marks.values(trials)
    limits = marks.readable(values, marks.kept(sweep))
    axes.set_ylim(*limits)
    if len(trials) <= 200:
        marks.seeds_spread(axes, sweep, trials, numbers, 0)
    marks.points(axes, numbers, values, markersize=4 if len(trials) < 300 else 2.5)
    last = max(trial.number for trial in sweep.trials)
    lowest = np.minimum.accumulate(values)
    axes.step([*numbers, last], [*lowest, lowest[-1]], where="post", color=INK, linewidth=1.1, label="best so far")
    marks.marked(axes, sweep, list(zip(trials, map(float, numbers), values, strict=True)))
    axes.set_ylabel(sweep.objectives[0].text.replace(" (", "\n("))
    axes.legend(loc="upper right", ncols=3, bbox_to_anchor=(1, 1.12), borderaxespad=0)

    colours = {"diverged": marks.LOST, "pruned": marks.PRUNED, "failed": INK}
    for row, (name, at) in enumerate(strips):
        below.plot(at, [row] * len(at), "x", color=colours[name], markersize=3.5, markeredgewidth=1.1)
    if strips:
        below.set_ylim(len(strips) - 0.4, -0.6)
        below.set_yticks(range(len(strips)), [f"{name} ({len(at)})" for name, at in strips], fontsize=7.5)
        below.tick_params(axis="y", length=0)
        below.spines["left"].set_visible(False)
    below.set_xlabel("trial")
    below.set_xlim(-0.02 * last - 0.5, 1.02 * last + 0.5)
    below.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1))
    caption = f"{sweep.objectives[0].name.capitalize()} of {marks.over(sweep, trials)}, in the order of the trials."
    if len(sweep.seeds) > 1 and len(trials) <= 200:
        caption += " Whiskers: lowest to highest seed."
    caption += " Line: the lowest so far, which falls by luck too." + marks.marks_text(sweep)
    caption += marks.beyond_text(values, limits)
    caption += " Strip below: trials without a value." if strips else ""
    return Plot(NAME, "History", caption, figure)
