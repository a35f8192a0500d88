"""What a row gains against what it costs: loss gap by time a step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from mhc_lab.report.figures.labels import SIZE, PointLabel, Segment, label_points
from mhc_lab.report.figures.paper import OVERHEAD, from_plain_residual
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.row_gaps import (
    NO_GAP,
    RowGap,
    cut_text,
    draw_interval,
    interval_text,
    readable,
    row_gaps,
)
from mhc_lab.report.figures.seed_curves import row_text, seeds_text
from mhc_lab.report.figures.style import (
    GRID,
    INK,
    MAX_ROWS,
    MUTED,
    PAPER,
    REFERENCE,
    RowStyle,
    drawn_rows,
    row_styles,
)
from mhc_lab.units import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "quality_cost"
_WIDTH, _HEIGHT = 7.0, 3.9  # inches
_LEFT, _RIGHT, _BOTTOM, _TOP = 1.0, 0.15, 0.5, 0.3
_REGION_TEXT = 1.3  # inches that the words in the grey region take
_LOG_FROM = 8.0  # the dearest row's ratio


def draw(material: Material) -> Plot | Absent:
    """A point a row: median time a step over the baseline's, and the final loss gap with its 95 % interval."""
    study, frame = material.study, material.summary.frame
    ratios = {
        str(row): float(ratio) for row, ratio in zip(frame["row"], frame["ms_ratio"], strict=True) if pd.notna(ratio)
    }
    if not ratios:
        return Absent(NAME, "no timing pass, so no relative cost; it follows the study's last run: repeat its command")
    compared = [row["row"] for row in study.rows if row["row"] != row["baseline"]]
    gaps = {row: gap for row, gap in row_gaps(material, compared).items() if row in ratios}
    if not gaps:
        untimed = "no row with a loss gap was timed; repeat the study's command"
        return Absent(NAME, NO_GAP if ratios.keys() >= set(compared) else untimed)

    ratios = {row: ratios[row] for row in gaps}
    figure = Figure(figsize=(_WIDTH, _HEIGHT), facecolor=PAPER)
    size = (_WIDTH - _LEFT - _RIGHT, _HEIGHT - _BOTTOM - _TOP)
    axes = figure.add_axes((_LEFT / _WIDTH, _BOTTOM / _HEIGHT, size[0] / _WIDTH, size[1] / _HEIGHT))
    plain = from_plain_residual(study)
    uprights = [1.0, OVERHEAD.value] if plain else [1.0]
    _limits(axes, gaps, [*ratios.values(), *uprights])
    _regions(axes, size)
    if plain:
        _overhead(axes)
    styles = row_styles(study)
    for row, gap in gaps.items():
        _point(axes, ratios[row], gap, styles[row])
    axes.plot([1], [0], "o", color=INK, markersize=6, zorder=4)
    alone = len(study.baselines) == 1
    controls = {row["row"] for row in study.rows if row["control"]}
    points = {row: (ratios[row], gap.mean) for row, gap in gaps.items()}
    front = _front([at for row, at in points.items() if row not in controls]) if alone else []
    axes.plot(*np.array(front).reshape(-1, 2).T, color=MUTED, linewidth=0.7, linestyle=(0, (4, 2)), zorder=1.5)

    first, _ = drawn_rows(study)
    named = [row for row, at in points.items() if row in first or at in front]
    labels = [PointLabel(1, 0, study.baselines[0] if alone else "own baseline", INK)]
    for row in named:
        labels.append(
            PointLabel(*points[row], row_text(study, row) + _beyond(axes, gaps[row].mean), styles[row].colour)
        )
    bars = [
        ((ratios[row], gap.interval[0]), (ratios[row], gap.interval[1])) for row, gap in gaps.items() if gap.interval
    ]
    others = [at for row, at in points.items() if row not in named]
    label_points(axes, labels, others, [*bars, *pairwise(front), *_rules(axes, uprights)], size)
    of = "the baseline's" if alone else "its baseline's"
    axes.set_xlabel(f"time a step / {of}")
    axes.set_ylabel(f"validation loss − {of}\n(nats per token)")
    caption = (
        f"Loss gap of each row, mean over {seeds_text(len(gap.seeds) for gap in gaps.values())} "
        f"{interval_text(gaps.values())}, against its median time a step over {of} ({_machine(material)}). "
        f"Filled: distinguishable from the baseline."
    )
    caption += f" Dotted: {OVERHEAD.label}." if plain else ""
    caption += " The dashed line joins the rows that no other beats in both, by their means." if front else ""
    caption += cut_text(gaps.values(), axes.get_ylim())
    if others:
        caption += f" Named are the first {MAX_ROWS} rows{' and those on the dashed line' if front else ''}."
    missing = [row for row in compared if row not in gaps]
    caption += f" Without a gap or a time: {listed(missing)}." if missing else ""
    return Plot(NAME, "Quality against cost", caption, figure)


def _limits(axes: Axes, gaps: Mapping[str, RowGap], ratios: Sequence[float]) -> None:
    """Room for the names at both sides."""
    low, high = min(ratios), max(ratios)
    if high > _LOG_FROM:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ratio, _: f"{ratio:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xlim(low * (low / high) ** 0.12, high * (high / low) ** 0.12)
    else:
        room = 0.12 * (high - low) or 0.1
        axes.set_xlim(low - room, high + room)
    axes.set_ylim(*readable(list(gaps.values()), seeds=False))


def _regions(axes: Axes, size: tuple[float, float]) -> None:
    """What lies behind the points; `size` is that of the axes in inches."""
    (left, _), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    axes.fill([left, 1, 1, left], [bottom, bottom, 0, 0], color=GRID, alpha=0.6, linewidth=0, zorder=0)
    if -bottom / (top - bottom) * size[1] > _REGION_TEXT:
        look: dict[str, Any] = {"textcoords": "offset points", "fontsize": SIZE, "color": MUTED, "rotation": 90}
        # At the edge, where no row stands: the bar of the control arm is near 1.
        axes.annotate("better and cheaper", (left, bottom), (3, 4), ha="left", va="bottom", **look)
    axes.axhline(0, color=INK, linewidth=0.8, zorder=1)
    axes.axvline(1, color=INK, linewidth=0.8, zorder=1)


def _overhead(axes: Axes) -> None:
    """The paper's, named above the axis at the side where there is room."""
    axes.axvline(OVERHEAD.value, color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1)
    across = (axes.transScale + axes.transLimits).transform((OVERHEAD.value, 0))[0]
    place: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
    look: dict[str, Any] = {"ha": "left" if across < 0.4 else "right", "color": REFERENCE, "fontsize": SIZE}
    axes.annotate(OVERHEAD.label, (OVERHEAD.value, 1), (0, 3), **place, **look)


def _rules(axes: Axes, uprights: Sequence[float]) -> list[Segment]:
    """The lines across the whole figure."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    return [((left, 0.0), (right, 0.0)), *(((x, bottom), (x, top)) for x in uprights)]


def _point(axes: Axes, ratio: float, gap: RowGap, style: RowStyle) -> None:
    bottom, top = axes.get_ylim()
    inside = 0.02 * (top - bottom)
    if gap.interval and bottom <= gap.mean <= top:
        draw_interval(axes, ratio, gap.interval, upright=True, color=style.colour, linewidth=1.2, alpha=0.75, zorder=2)
    face = style.colour if gap.distinguishable else PAPER
    look: dict[str, Any] = {"color": style.colour, "markerfacecolor": face, "markersize": 6, "zorder": 3}
    axes.plot([ratio], [min(max(gap.mean, bottom + inside), top - inside)], style.marker, **look)


def _front(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The corners of the steps through the points that no other beats in both, the baseline among them."""
    corners: list[tuple[float, float]] = []
    for x, y in sorted([*points, (1.0, 0.0)]):
        if not corners:
            corners.append((x, y))
        elif y < corners[-1][1]:
            corners += [(x, corners[-1][1]), (x, y)]
    return corners


def _beyond(axes: Axes, gap: float) -> str:
    """The gap itself, of a point that stands at the edge of the axis because it is beyond."""
    bottom, top = axes.get_ylim()
    return "" if bottom <= gap <= top else f" (at {gap:+.3g})".replace("-", "−")


def _machine(material: Material) -> str:
    timing = material.study.timing or {}
    threads = timing.get("threads")
    device = str(timing.get("device") or "timing pass")
    return f"{device}, {threads} thread{'s' if threads != 1 else ''}" if threads else device
