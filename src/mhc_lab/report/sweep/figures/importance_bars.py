"""What the objective depends on, by two measures."""

from __future__ import annotations

from matplotlib.figure import Figure

from mhc_lab.report.figures.labels import wrapped
from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import INK, PAPER
from mhc_lab.report.sweep.data import Sweep
from mhc_lab.report.sweep.figures import marks
from mhc_lab.report.sweep.importance import FORESTS, SHUFFLES, Importances

NAME = "importance"
_BAR = 0.36


def draw(sweep: Sweep, found: Importances, objective: int = 0) -> Plot | Absent:
    """Two bars a parameter, each with what chance would give; whiskers over the seeds of the forest."""
    metric = sweep.objectives[objective]
    name = NAME if objective == 0 else f"{NAME}_{metric.metric}"
    if found.none:
        return Absent(name, found.none)
    shown = found.parameters
    figure = Figure(figsize=(7.0, 1.05 + 0.46 * len(shown)), layout="constrained", facecolor=PAPER)
    axes = figure.subplots()
    axes.grid(True, axis="x")
    for place, one in enumerate(shown):
        ends = [[max(one.fanova - one.low, 0)], [max(one.high - one.fanova, 0)]]
        look = {"xerr": ends, "error_kw": {"elinewidth": 1.0, "ecolor": INK}} if one.high > one.low else {}
        first = {"label": "fANOVA"} if place == 0 else {}
        axes.barh(place - _BAR / 2, one.fanova, _BAR, color=marks.TRIAL, **look, **first)  # type: ignore[arg-type]
        first = {"label": "PED-ANOVA"} if place == 0 else {}
        axes.barh(place + _BAR / 2, one.ped_anova, _BAR, color="#e69f00", **first)  # type: ignore[arg-type]
        for side, chance in ((-1, one.fanova_chance), (1, one.ped_anova_chance)):
            middle = place + side * _BAR / 2
            first = {"label": "by chance"} if place == 0 and side < 0 else {}
            axes.vlines(chance, middle - _BAR / 2, middle + _BAR / 2, color=INK, linewidth=2.2, **first)  # type: ignore[arg-type]
    axes.set_yticks(range(len(shown)), [wrapped(sweep.names[one.parameter.key]) for one in shown])
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.set_xlabel("share")
    figure.legend(loc="outside upper right", ncols=3)
    trials = sorted({one.trials for one in shown})
    counted = f"{trials[0]}" if len(trials) == 1 else f"{trials[0]} to {trials[-1]}"
    caption = (
        f"What the {metric.name} depends on, from {counted} comparable trials. fANOVA: share of the variance over the "
        f"space explained by the parameter alone; whiskers: lowest and highest of {len(FORESTS)} forests. PED-ANOVA: "
        f"share of what sets the best {found.top} trials apart. Thick lines: what {SHUFFLES - 1} of {SHUFFLES} "
        f"shufflings of the {metric.name} among the trials stay below; a bar that ends before its line says nothing."
    )
    return Plot(name, f"Importance for the {metric.name}", caption, figure)
