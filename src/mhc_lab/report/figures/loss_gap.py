"""The figure beside the table: each row's loss gap, seed by seed, with its interval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from matplotlib.figure import Figure
from matplotlib.transforms import blended_transform_factory

from mhc_lab.report.figures.labels import column_width, wrapped
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
from mhc_lab.report.figures.style import GRID, INK, MUTED, PAPER, REFERENCE, RowStyle, drawn_rows, row_styles
from mhc_lab.report.summary import losses_by_seed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "loss_gap"
MOST = 40  # rows; as many as a page is high
_WIDTH = 7.0
_TOP, _BOTTOM = 0.28, 0.48  # inches above and below the rows


def draw(material: Material) -> Plot | Absent:
    """One line a row: dots are seeds, the bar is the mean with its 95 % paired t interval, the band the noise floor."""
    study = material.study
    rows, left_out = drawn_rows(study, most=MOST)
    compared = [row for row in rows if row != study.baseline_of(row)]
    gaps = row_gaps(material, compared)
    if not gaps:
        return Absent(NAME, NO_GAP)

    groups = {base: [row for row in compared if study.baseline_of(row) == base] for base in study.baselines}
    groups = {base: group for base, group in groups.items() if group}
    heads = len(groups) > 1
    names = {row: wrapped(row_text(study, row)) for row in compared}
    figure, axes = _axes(names, [f"minus {base}:" for base in groups] if heads else [])
    axes.set_xlim(*readable(list(gaps.values()), [gap.paper for gap in gaps.values() if gap.paper]))
    axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
    places: dict[str, int] = {}
    slot = 0
    for base, group in groups.items():
        if heads:
            _say(axes, -0.01, slot, f"minus {base}:", "right")
            slot += 1
        _floor(axes, material.summary.noise_floors.get(base), slot - 0.5, slot + len(group) - 0.5)
        places |= {row: slot + place for place, row in enumerate(group)}
        slot += len(group)
    styles = row_styles(study)
    for row, place in places.items():
        if row in gaps:
            _draw(axes, place, gaps[row], styles[row])
        else:
            finished = losses_by_seed(study, row)
            _say(axes, 0.01, place, "no seed in common with the baseline" if finished else "no seed finished", "left")
    _paper(axes, [(gaps[row].paper, place) for row, place in places.items() if row in gaps])
    axes.set_yticks(list(places.values()), [names[row] for row in places], fontsize=7.5, parse_math=False)
    axes.tick_params(axis="y", length=0)
    axes.grid(True, axis="x")
    what = "its baseline's" if heads else next(iter(groups))
    axes.set_xlabel(f"validation loss − {what} (nats per token)", parse_math=False)
    return Plot(NAME, "Loss gap of every row", _caption(gaps, heads, material, axes.get_xlim()) + left_out, figure)


def _axes(names: Mapping[str, str], heads: Sequence[str]) -> tuple[Figure, Axes]:
    """A figure as high as its rows and the heads of their groups need, and room for the names at its left."""
    slots = len(names) + len(heads)
    pitch = max(0.32 if slots <= 16 else 0.25, 0.14 * max(name.count("\n") + 1 for name in names.values()) + 0.03)
    left = column_width([*names.values(), *heads]) - 0.25
    height = _TOP + pitch * slots + _BOTTOM
    figure = Figure(figsize=(_WIDTH, height), facecolor=PAPER)
    box = (left / _WIDTH, _BOTTOM / height, (_WIDTH - left - 0.3) / _WIDTH, pitch * slots / height)
    axes = figure.add_axes(box)
    axes.set_ylim(slots - 0.5, -0.5)
    return figure, axes


def _caption(gaps: dict[str, RowGap], heads: bool, material: Material, limits: tuple[float, float]) -> str:
    caption = (
        f"Validation loss of each row minus {'its own' if heads else 'the'} baseline's: dots are seeds, bars the "
        f"mean over {seeds_text(len(gap.seeds) for gap in gaps.values())} {interval_text(gaps.values())}. "
        f"Filled: distinguishable from the baseline (Holm-adjusted p < .05)."
    )
    if material.summary.noise_floors:
        caption += " Band: noise floor, the largest difference between the control arm and the design it repeats."
    if any(gap.paper for gap in gaps.values()):
        caption += " Ticks: the gaps of the mHC paper, Table 1."
    return caption + cut_text(gaps.values(), limits)


def _floor(axes: Axes, floor: float | None, top: float, bottom: float) -> None:
    """The band of one baseline's noise floor behind its rows, named above."""
    if floor is not None:
        sides, ends = [-floor, floor, floor, -floor], [top, top, bottom, bottom]
        axes.fill(sides, ends, color=GRID, alpha=0.6, linewidth=0, zorder=0)
        look: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "bottom", "fontsize": 7.5}
        at = min(floor, max(axes.get_xlim()))
        axes.annotate(f"noise floor ±{floor:.2g}", (at, top), (-2, 1.5), color=MUTED, **look)


def _say(axes: Axes, x: float, place: int, text: str, side: str) -> None:
    """A remark in a row's line; x from 0 to 1 across the axis."""
    across = blended_transform_factory(axes.transAxes, axes.transData)
    look: dict[str, Any] = {"color": MUTED, "fontsize": 7.5, "va": "center", "ha": side, "parse_math": False}
    axes.text(x, place, text, transform=across, **look)


def _paper(axes: Axes, gaps: Sequence[tuple[float | None, int]]) -> None:
    """A tick at the paper's gap of each row that has one, the first of them named."""
    ticks = [(gap, place) for gap, place in gaps if gap]
    if ticks:
        axes.plot(*zip(*ticks, strict=True), "|", color=REFERENCE, markersize=11, markeredgewidth=1.6)
        look: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 7.5, "color": REFERENCE}
        axes.annotate("paper", ticks[0], (4, 0), **look)


def _draw(axes: Axes, place: int, gap: RowGap, style: RowStyle) -> None:
    low, high = axes.get_xlim()
    if not low <= gap.mean <= high:
        edge, mark, side, away = (high, ">", "right", 0.98) if gap.mean > high else (low, "<", "left", 0.02)
        axes.plot([edge], [place], mark, color=style.colour, markersize=6, clip_on=False)
        _say(axes, away, place, f"{gap.mean:+.3g}".replace("-", "−"), side)
        return
    axes.plot(gap.seeds, [place + 0.24] * len(gap.seeds), ".", color=style.colour, alpha=0.6, markersize=4)
    if gap.interval:
        look: dict[str, Any] = {"color": style.colour, "linewidth": 2, "solid_capstyle": "butt"}
        draw_interval(axes, place, gap.interval, upright=False, **look)
    face = style.colour if gap.distinguishable else PAPER
    axes.plot([gap.mean], [place], style.marker, color=style.colour, markersize=6, markerfacecolor=face)
    if gap.identical:
        axes.annotate("identical", (gap.mean, place), (7, 0), textcoords="offset points", va="center", fontsize=7.5)
