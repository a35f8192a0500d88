"""What the figures of a sweep share: axes of the space, the range that is readable, the marks of best and start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from mhc_lab.report.figures.labels import wrapped
from mhc_lab.report.figures.style import INK, MUTED, PAPER, REFERENCE
from mhc_lab.report.sweep.data import Parameter, Sweep, SweepTrial, count, value, value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRIAL = "#0072b2"
PRUNED, LOST = "#e69f00", "#d55e00"
SCALE = "viridis"  # dark is low; its lightness alone orders it, in grey too
NOT_ASKED = "not asked\nfor"
_ROOM = 2.5  # of the better four fifths' range, above the lowest


def nothing(sweep: Sweep) -> str:
    return (
        f"no trial is complete with a finite {sweep.objectives[0].name} ({sweep.state_words()}); "
        "let more trials run or narrow the space"
    )


def position(parameter: Parameter, given: Any) -> float:
    """Of a value on its axis: choices stand at 0, 1, 2."""
    return float(parameter.choices.index(given) if parameter.kind == "choices" else given)


def scattered(parameter: Parameter, trials: Iterable[SweepTrial]) -> list[float]:
    """Positions of trials that have the parameter; among choices a little apart, the same every time."""
    apart = 0.24 if parameter.kind == "choices" else 0.0
    return [
        position(parameter, trial.params[parameter.key]) + apart * ((trial.number * 0.618034) % 1 - 0.5)
        for trial in trials
    ]


def space_axis(axes: Axes, parameter: Parameter, *, upright: bool = False) -> None:
    """The whole range that was searched, on its scale."""
    axis = axes.yaxis if upright else axes.xaxis
    limits = axes.set_ylim if upright else axes.set_xlim
    if parameter.kind == "choices":
        texts = [value_text(choice) for choice in parameter.choices]
        crowded = not upright and (len(texts) > 6 or max(map(len, texts)) * len(texts) > 34)
        texts = [shortened(text, 18) if crowded else wrapped(text, 12) for text in texts]
        axis.set_major_locator(FixedLocator(range(len(texts))))
        axis.set_major_formatter(FuncFormatter(lambda at, _: texts[round(at)] if 0 <= round(at) < len(texts) else ""))
        if crowded:
            axes.tick_params(axis="x", rotation=90, labelsize=7)
        axis.set_minor_locator(NullLocator())
        limits(-0.5, len(texts) - 0.5)
        return
    assert parameter.low is not None and parameter.high is not None
    low, high = parameter.low, parameter.high
    if parameter.log:
        (axes.set_yscale if upright else axes.set_xscale)("log")
        few = parameter.kind == "int" and high <= 8
        narrow = high / low < 300
        steps = (1, 2, 3, 4, 6, 8) if few else (1, 2, 5) if narrow else (1,)
        axis.set_major_locator(LogLocator(subs=steps, numticks=12))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda at, _: f"{at:g}"))
        room = (high / low) ** 0.04
        limits(low / room, high * room)
    else:
        axis.set_major_locator(MaxNLocator(5, integer=parameter.kind == "int"))
        room = 0.04 * (high - low)
        limits(low - room, high + room)


def shortened(text: str, most: int) -> str:
    """On one line: its middle left out beyond `most` characters."""
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[: most - 1 - half]}…{text[-half:]}"


def readable(given: Sequence[float], keep: Sequence[float] = ()) -> tuple[float, float]:
    """The range of an objective's axis: all of it, unless a few bad trials would press the rest together. `keep` lies
    within in any case."""
    low, high = float(min(given)), float(max(given))
    cut = low + _ROOM * float(np.quantile(given, 0.8) - low)
    top = cut if high > low + 1.5 * (cut - low) > low else high
    low, top = min(low, *keep, low), max(top, *keep, top)
    room = 0.06 * (top - low) or 0.01 * abs(low) or 0.01
    return low - room, top + room


def kept(sweep: Sweep, objective: int = 0) -> list[float]:
    """What an objective's axis must show: the starting point, and every seed of the better four fifths."""
    start, metric = sweep.start, sweep.objectives[objective].metric
    better = sorted(sweep.finite, key=lambda trial: value(trial, objective))[: -(-4 * len(sweep.finite) // 5)]
    ends = [seed for trial in better for seed in trial.seeds(metric).values()]
    return [*ends, *(values([start], objective) if start is not None and start.finite else [])]


def beyond_text(given: Iterable[float], limits: tuple[float, float]) -> str:
    """What a caption says of trials that stand at the upper edge because they lie beyond it."""
    outside = [one for one in given if one > limits[1]]
    if not outside:
        return ""
    return f" {count(len(outside), 'trial')} above the axis (up to {max(outside):.3g}) at its upper edge."


def points(axes: Axes, across: Sequence[float], up: Sequence[float], **look: Any) -> None:
    """Points; those above the axis as hollow triangles at its edge. Set the limits before."""
    bottom, top = axes.get_ylim()
    x, y = np.asarray(across, dtype=float), np.asarray(up, dtype=float)
    inside = y <= top
    settings: dict[str, Any] = {"color": TRIAL, "markersize": 4, "alpha": 0.75, "markeredgewidth": 0.0} | look
    axes.plot(x[inside], y[inside], "o", linestyle="none", **settings)
    settings |= {"markerfacecolor": PAPER, "markeredgewidth": 0.8, "markeredgecolor": settings["color"]}
    edge = np.full(int((~inside).sum()), top - 0.025 * (top - bottom))
    axes.plot(x[~inside], edge, "^", linestyle="none", **settings)


def marked(axes: Axes, sweep: Sweep, at: Sequence[tuple[SweepTrial, float, float]], *, with_best: bool = True) -> None:
    """Best and starting point among the trials (trial, x, y), with names for a legend."""
    bottom, top = axes.get_ylim()
    best = sweep.ranked[0] if sweep.ranked and with_best else None
    for trial, x, y in at:
        inside = min(y, top - 0.025 * (top - bottom))
        if trial is sweep.start:
            axes.plot(
                [x], [inside], "D", color=REFERENCE, markersize=6, markerfacecolor="none", markeredgewidth=1.4,
                zorder=6, label="starting point",
            )  # fmt: skip
        if trial is best:
            axes.plot(
                [x], [inside], "*", color=INK, markersize=10, markeredgecolor=PAPER, markeredgewidth=0.6, zorder=5,
                label="best",
            )  # fmt: skip


def seeds_spread(
    axes: Axes, sweep: Sweep, trials: Sequence[SweepTrial], across: Sequence[float], objective: int
) -> bool:
    """Thin whiskers from the lowest to the highest seed of each trial; whether there are any."""
    metric = sweep.objectives[objective].metric
    ends = [
        (x, min(seeds), max(seeds))
        for x, trial in zip(across, trials, strict=True)
        if len(seeds := list(trial.seeds(metric).values())) > 1
    ]
    if ends:
        x, low, high = np.array(ends).T
        axes.vlines(x, low, high, color=MUTED, linewidth=0.6, alpha=0.45 if len(ends) < 100 else 0.15, zorder=1)
    return bool(ends)


def over(sweep: Sweep, trials: Sequence[SweepTrial]) -> str:
    """For a caption: over what."""
    seeds = count(len(sweep.seeds), "seed")
    mean = f"means over {seeds}" if len(sweep.seeds) > 1 else "one seed"
    return f"{count(len(trials), 'comparable trial')} of {len(sweep.trials)}, {mean}"


def marks_text(sweep: Sweep) -> str:
    """What a caption says of the marks."""
    start = sweep.start
    return " Star: the best." + (" Diamond: the starting point." if start is not None and start.finite else "")


def values(trials: Iterable[SweepTrial], objective: int = 0) -> list[float]:
    return [value(trial, objective) for trial in trials]
