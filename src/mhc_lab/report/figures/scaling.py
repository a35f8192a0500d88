"""Whether a gain stays as models grow: gaps against compute over several sizes (Fig. 6a of the paper); for a study of
one size, over the tokens of its runs (Fig. 6b)."""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.ticker import NullFormatter, NullLocator

from mhc_lab.report import stats
from mhc_lab.report.figures import within_run
from mhc_lab.report.figures.labels import EndLabel, column_height, label_ends
from mhc_lab.report.figures.paper import MHC_FINAL_GAP, from_plain_residual
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.row_gaps import farthest
from mhc_lab.report.figures.seed_curves import diverged_seeds, seeds_text
from mhc_lab.report.figures.style import GRID, INK, MAX_ROWS, MUTED, REFERENCE, RowStyle, panels, row_styles
from mhc_lab.report.figures.within_run import tokens_a_step
from mhc_lab.report.frame import Study
from mhc_lab.report.summary import losses_by_seed
from mhc_lab.report.texts import count
from mhc_lab.units import listed

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "scaling"
_ROOM = 3.0  # times its height that an axis may grow for the paper's number
_APART = 0.3  # of an axis, between two sizes that are both labelled


@dataclass(frozen=True)
class Point:
    """A row against the baseline of its size.

    `compute` is that of the baseline in training FLOPs, `gap` in nats per token, `percent` the row's loss in % of the
    baseline's.
    """

    row: str
    compute: float
    gap: stats.Estimate
    percent: stats.Estimate


def draw(material: Material) -> Plot | Absent:
    """Points over the sizes, if a design is there at several, else curves over the tokens of the runs.

    A size is a baseline; sizes differ in the training compute of their baselines. Absent where no row can be paired
    with its baseline.
    """
    designs = _designs(material.study)
    plot = _over_sizes(material, designs) if designs else within_run.draw(material, NAME)
    if isinstance(plot, Absent) and len(material.study.baselines) > 1:
        return Absent(NAME, f"no design at two sizes that differ in compute, and {plot.reason}")
    return plot


def _designs(study: Study) -> dict[str, list[Point]]:
    """By name, the points of every design that has some at two sizes or more, in order of the sizes.

    Rows are of one design if their variants and what they override of the residual are the same. Only rows whose
    baseline is of one design with that of the study have a point: gaps to different designs would not make one line.
    """
    kinds = {row["row"]: _design(row) for row in study.rows}
    compute = {row: _compute(study, row) for row in study.baselines}
    points: dict[tuple[str, ...], list[Point]] = {}
    taken: Counter[tuple[str, ...]] = Counter()
    for row in study.rows:
        if row["control"] or row["row"] == row["baseline"] or kinds[row["baseline"]] != kinds[study.baseline]:
            continue
        design = kinds[row["row"]]
        taken[row["baseline"], *design] += 1
        if taken[row["baseline"], *design] > 1:  # they differ in what is not of the residual
            design += (str(taken[row["baseline"], *design]),)
        point = _point(study, row["row"], row["baseline"], compute[row["baseline"]])
        if point:
            points.setdefault(design, []).append(point)
    several = {design: found for design, found in points.items() if len({point.compute for point in found}) > 1}
    stems = {design: _stem([point.row for point in found]) for design, found in several.items()}
    unique = Counter(stems.values())
    names = {design: stem if stem and unique[stem] == 1 else ", ".join(design) for design, stem in stems.items()}
    return {names[design]: sorted(found, key=lambda point: point.compute) for design, found in several.items()}


def _design(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The variant and the overrides of the residual, of a row of the study."""
    changes = sorted(key.removeprefix("residual.") for key in row["overrides"] if key.startswith("residual."))
    return row["variant"], *changes


def _stem(rows: Sequence[str]) -> str:
    """The words that all names begin with: hc_res of hc_res_s and hc_res_m."""
    words = zip(*(re.split(r"([_.+-])", row) for row in rows), strict=False)
    return "".join(word[0] for word in itertools.takewhile(lambda word: len(set(word)) == 1, words)).rstrip("_.+-")


def _compute(study: Study, row: str) -> float | None:
    """Training FLOPs of a run: those counted for a token, forward and backward, times its tokens."""
    tokens = tokens_a_step(study, row)
    cells = study.row_cells(row)
    compute = (tokens or math.nan) * cells["steps"].max() * cells["flops_per_token"].max()
    return float(compute) if compute > 0 else None


def _point(study: Study, row: str, baseline: str, compute: float | None) -> Point | None:
    ours, theirs = losses_by_seed(study, row), losses_by_seed(study, baseline)
    seeds = sorted(ours.keys() & theirs.keys())
    if compute is None or not seeds:
        return None
    gap = stats.mean_interval([ours[seed] - theirs[seed] for seed in seeds])
    return Point(row, compute, gap, stats.mean_interval([100 * ours[seed] / theirs[seed] for seed in seeds]))


def _over_sizes(material: Material, designs: Mapping[str, list[Point]]) -> Plot:
    """(a) the loss relative to the baseline's, (b) the gap; a line a design."""
    study, styles = material.study, row_styles(material.study)
    names = list(designs)[:MAX_ROWS]
    drawn = [point for name in names for point in designs[name]]
    sizes = {point.compute: study.baseline_of(point.row) for point in sorted(drawn, key=lambda point: point.compute)}
    floors = {size: material.summary.noise_floors.get(baseline, 0.0) for size, baseline in sizes.items()}
    low, high = _limits([point.gap for point in drawn], 0.0, also=floors.values())
    paper = MHC_FINAL_GAP.value
    plain = from_plain_residual(study)
    reference = plain and max(high, paper) - min(low, paper) <= _ROOM * (high - low)

    labels = [EndLabel(0.0, "baseline of its size")]
    for name in names:
        style = styles[designs[name][0].row]
        labels.append(EndLabel(designs[name][-1].gap.mean, name + _lost(study, designs[name]), style))
    if reference:
        low, high = min(low, paper), max(high, paper)
        labels.append(EndLabel(paper, MHC_FINAL_GAP.label, colour=REFERENCE))
    height = max(2.4, column_height(label.text for label in labels) + 0.1)
    figure, axes = panels((1, 1), height=height + 0.8)
    for panel, limits in zip(axes, (_limits([point.percent for point in drawn], 100.0), (low, high)), strict=True):
        margin = 0.06 * (limits[1] - limits[0])
        panel.set_ylim(limits[0] - margin, limits[1] + margin)
        _scale(panel, study, sizes)
    step = 0.012 * math.log10(max(sizes) / min(sizes))  # side by side, so that no interval covers another
    for place, name in enumerate(names):
        shift = 10 ** (step * (place - (len(names) - 1) / 2))
        for panel, part in zip(axes, ("percent", "gap"), strict=True):
            _draw_design(panel, study, designs[name], part, shift, styles[designs[name][0].row])
    _draw_floors(axes[1], floors)
    if reference:
        axes[1].axhline(paper, color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 2)), zorder=1.5)
    axes[0].axhline(100, color=INK, linewidth=0.8, zorder=1.5)
    axes[1].axhline(0, color=INK, linewidth=0.8, zorder=1.5)
    axes[0].set_title("(a) relative loss", loc="left")
    axes[1].set_title("(b) loss gap", loc="left")
    axes[0].set_ylabel("validation loss / baseline's (%)")
    axes[1].set_ylabel("validation loss − baseline's\n(nats per token)")
    label_ends(axes[1], labels, height=height)

    caption = (
        "Validation loss (a) relative to that of the baseline of the same size and (b) minus it, against the training "
        f"FLOPs of that baseline; means over {seeds_text(point.gap.n for point in drawn)}, bars are 95 % paired t "
        "intervals (from 3 seeds). After the paper's Fig. 6a."
    )
    if any(floors.values()):
        caption += (
            " Grey bars: the noise floor, the largest difference between the control arm and the design it repeats."
        )
    if any(_is_partial(study, point) for point in drawn):
        caption += " × marks means over the seeds that are left after others diverged."
    if plain and not reference:
        caption += f" The paper's number, {MHC_FINAL_GAP.label}, a gap of training loss, lies outside."
    caption += " Dotted: the paper's number, a gap of training loss." if reference else ""
    if len(designs) > len(names):
        caption += f" Drawn are the first {len(names)} of {len(designs)} designs."
    return Plot(NAME, "Loss gap over model sizes", caption + _missing(study, designs), figure)


def _limits(estimates: Sequence[stats.Estimate], baseline: float, also: Iterable[float] = ()) -> tuple[float, float]:
    """The ends of an axis with the baseline for all means but those that are far beyond the others, and for their
    intervals as far as these do not take up most of it; `also` are half widths of bars around the baseline."""
    most = farthest([abs(estimate.mean - baseline) for estimate in estimates])
    near = [estimate for estimate in estimates if abs(estimate.mean - baseline) <= most]
    means = [baseline, *(estimate.mean for estimate in near)]
    reach = 1.5 * max(abs(mean - baseline) for mean in means)
    half = [estimate.half_width or 0.0 for estimate in near]
    ends = [estimate.mean + sign * width for estimate, width in zip(near, half, strict=True) for sign in (-1, 1)]
    ends += [baseline + sign * width for width in also for sign in (-1, 1)]
    ends = [*means, *np.clip(ends, min(means) - reach, max(means) + reach)]
    return min(ends), max(max(ends), min(ends) + 1e-3)


def _draw_design(panel: Axes, study: Study, points: Sequence[Point], part: str, shift: float, style: RowStyle) -> None:
    """A line through the means at `shift` times the compute, a bar for each interval."""
    estimates: list[stats.Estimate] = [getattr(point, part) for point in points]
    x = [point.compute * shift for point in points]
    y = [estimate.mean for estimate in estimates]
    colour = style.colour
    panel.plot(x, y, color=colour, linestyle=style.line, marker=style.marker, markerfacecolor=style.face, zorder=3)
    for at, estimate in zip(x, estimates, strict=True):
        if estimate.half_width is not None:
            ends = (estimate.mean - estimate.half_width, estimate.mean + estimate.half_width)
            panel.plot((at, at), ends, color=colour, linewidth=1.0, solid_capstyle="butt", zorder=2.5)
    for at, mean, point in zip(x, y, points, strict=True):
        if _is_partial(study, point):
            panel.plot([at], [mean], "x", color=colour, markersize=8, markeredgewidth=1.6, zorder=4)


def _is_partial(study: Study, point: Point) -> bool:
    """Whether seeds are missing from a point because they diverged, in the row or in its baseline."""
    return bool(diverged_seeds(study, point.row) | diverged_seeds(study, study.baseline_of(point.row)))


def _draw_floors(panel: Axes, floors: Mapping[float, float]) -> None:
    """A broad bar at each size with a control arm, the first one named."""
    named = next((size for size, floor in floors.items() if floor), None)
    for size, floor in floors.items():
        panel.plot((size, size), (-floor, floor), color=GRID, linewidth=10, solid_capstyle="butt", zorder=1)
        if size == named:
            beyond = size == max(floors)
            panel.annotate(
                "noise floor",
                (size, floor),
                xytext=(-7 if beyond else 7, 0),
                textcoords="offset points",
                ha="right" if beyond else "left",
                va="top",
                fontsize=7,
                color=MUTED,
            )


def _scale(panel: Axes, study: Study, sizes: Mapping[float, str]) -> None:
    """A log axis with a tick at each size, FLOPs and parameters under those that are not too near another."""
    low, high = math.log10(min(sizes)), math.log10(max(sizes))
    margin = 0.14 * (high - low)
    panel.set_xscale("log")
    panel.set_xlim(10 ** (low - margin), 10 ** (high + margin))
    panel.xaxis.set_minor_locator(NullLocator())
    panel.xaxis.set_minor_formatter(NullFormatter())
    texts, last = [], -math.inf
    for compute, baseline in sizes.items():
        at = (math.log10(compute) - low) / (high - low)
        if at - last < _APART:
            texts.append("")
            continue
        last = at
        texts.append(f"{_scientific(compute)}\n{count(study.row_cells(baseline)['parameters'].max())}")
    panel.set_xticks(list(sizes), texts, fontsize=7.5)
    panel.set_xlabel("training FLOPs, parameters")


def _scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return rf"${mantissa}\cdot10^{{{int(exponent)}}}$"


def _lost(study: Study, points: Iterable[Point]) -> str:
    rows = [point.row for point in points]
    diverged = sum(len(diverged_seeds(study, row)) for row in rows)
    return f" ({diverged} of {sum(len(study.row_cells(row)) for row in rows)} diverged)" if diverged else ""


def _missing(study: Study, designs: Mapping[str, list[Point]]) -> str:
    there = {point.row for points in designs.values() for point in points} | set(study.baselines)
    left = [row for row in study.rows if row["row"] not in there and not row["control"]]
    kinds = {row["row"]: _design(row) for row in study.rows}
    alike = [row["row"] for row in left if kinds[row["baseline"]] == kinds[study.baseline]]
    unlike = [row["row"] for row in left if kinds[row["baseline"]] != kinds[study.baseline]]
    text = f" Without a finished seed or a second size: {listed(alike)}." if alike else ""
    return text + (f" Measured from another design: {listed(unlike)}." if unlike else "")
