"""Training loss of every row against its baseline's, step by step (Fig. 2a and 5a of the paper)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from mhc_lab.report.curves import Training
from mhc_lab.report.figures.labels import EndLabel
from mhc_lab.report.figures.line_panels import BANDS, Scene, lay_out
from mhc_lab.report.figures.paper import MHC_FINAL_GAP, from_plain_residual
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.row_gaps import FAR, farthest
from mhc_lab.report.figures.seed_curves import (
    Array,
    SeedCurves,
    bands_text,
    diverged_seeds,
    lost_text,
    over_seeds,
    row_text,
    seeds_text,
    smooth,
    smoothing,
)
from mhc_lab.report.figures.style import INK, REFERENCE, drawn_rows, row_styles

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAME = "loss_steps"
_EARLY = 0.2  # of the points, where gaps are many times those at the end
_SURGE = 4.0  # times a row's usual gap
_ROOM = 3.0  # times its height that the axis may grow for the paper's number


def draw(material: Material) -> Plot | Absent:
    """A line a row: the mean over seeds of row minus baseline at the same steps, hence on the same batches."""
    study = material.study
    rows, left_out = drawn_rows(study)
    lines: dict[str, SeedCurves] = {}
    points, seeds = 0, []
    for row in (row for row in rows if row != study.baseline_of(row)):
        curves = _differences(material.training[row], material.training[study.baseline_of(row)])
        line = over_seeds(curves, diverged_seeds(study, row))
        if line is not None:
            lines[row] = line
            points = max(points, *(len(x) for x, _ in curves.values()))
            seeds.append(len(curves))
    if not lines:
        return Absent(NAME, "no row and its baseline logged training steps with the same seed; run both")

    low, high, reference = _limits(list(lines.values()), paper=from_plain_residual(study))
    labels = [
        EndLabel(0, row_text(study, study.baselines[0], gap=False) if len(study.baselines) == 1 else "own baseline")
    ]
    if reference:
        labels.append(EndLabel(MHC_FINAL_GAP.value, MHC_FINAL_GAP.label, colour=REFERENCE))

    def behind(axes: Axes) -> None:
        axes.axhline(0, color=INK, linewidth=0.8)
        if reference:
            axes.axhline(MHC_FINAL_GAP.value, color=REFERENCE, linewidth=0.9, linestyle=(0, (1, 2)))

    scene = Scene(
        xlim=(0, max(1.0, *(line.x[-1] for line in lines.values()))),
        ylim=(low, high),
        log=False,
        xlabel="training step",
        ylabel="training loss − baseline's\n(nats per token)",
        behind=behind,
        labels=labels,
    )
    figure = lay_out(lines, row_styles(study), {row: row_text(study, row, gap=True) for row in lines}, scene)
    missing = [row for row in rows if row != study.baseline_of(row) and row not in lines]
    outside = (
        ""
        if reference or not from_plain_residual(study)
        else f" The paper's number, {MHC_FINAL_GAP.label}, lies outside."
    )
    caption = (
        f"Training loss of each row minus its baseline's at the same step, mean over {seeds_text(seeds)}; "
        f"{bands_text(seeds, '95 % paired t intervals at each step')}.{lost_text(lines.values())} "
        f"After the paper's Fig. 5a. {smoothing(points)} The axis is chosen for the last {1 - _EARLY:.0%} of the steps."
    )
    caption += outside + left_out + (f" Without a curve: {', '.join(missing)}." if missing else "")
    return Plot(NAME, "Loss gap over training", caption, figure)


def _differences(row: Mapping[int, Training], baseline: Mapping[int, Training]) -> dict[int, tuple[Array, Array]]:
    """By seed, the steps that both logged and row minus baseline there, smoothed."""
    found = {}
    for seed in sorted(row.keys() & baseline.keys()):
        steps, at_row, at_baseline = np.intersect1d(row[seed].steps, baseline[seed].steps, return_indices=True)
        gap = row[seed].train_loss[at_row] - baseline[seed].train_loss[at_baseline]
        finite = np.isfinite(gap)
        if finite.any():
            found[seed] = steps[finite], smooth(gap[finite])
    return found


def _limits(lines: list[SeedCurves], *, paper: bool) -> tuple[float, float, bool]:
    """The ends of the axis, and whether the paper's number is to be drawn and lies between them."""
    usual = [_usual(line) for line in lines]
    most = farthest(usual)
    near = [(line, own) for line, own in zip(lines, usual, strict=True) if own <= most]
    points = [np.zeros(1)]
    for line, own in near:
        # Surges, a row's own and those of a seed before it diverges, do not decide on the axis.
        late = line.mean[int(_EARLY * len(line.x)) :]
        points.append(late[np.abs(late) <= _SURGE * max(own, most / FAR)])
    low, high = float(np.concatenate(points).min()), float(np.concatenate(points).max())
    if len(lines) <= BANDS:  # they have their bands in the one panel: as far as these widen it by half at each end
        room = (high - low) / 2
        ends = np.concatenate([end[len(line.x) // 2 :] for line, _ in near for end in (line.low, line.high)])
        ends = ends[(ends >= low - room) & (ends <= high + room)]
        low, high = float(np.min([low, *ends])), float(np.max([high, *ends]))
    with_paper = min(low, MHC_FINAL_GAP.value), max(high, MHC_FINAL_GAP.value)
    reference = paper and (with_paper[1] - with_paper[0] <= _ROOM * (high - low) or high == low)
    if reference:
        low, high = with_paper
    margin = 0.25 * (high - low) or 0.01
    return low - margin, high + margin, reference


def _usual(line: SeedCurves) -> float:
    """The median over late points of how far the line or its band is from 0."""
    reach = np.fmax(np.abs(line.mean), np.fmax(np.abs(line.low), np.abs(line.high)))
    return float(np.median(reach[int(_EARLY * len(line.x)) :]))
