"""Gradient norm of every row, step by step (Fig. 2b and 5b of the paper)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mhc_lab.report.curves import Array, Training
from mhc_lab.report.figures.line_panels import BANDS, Scene, lay_out
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.seed_curves import (
    SeedCurves,
    bands_text,
    diverged_seeds,
    lost_text,
    over_seeds,
    points_text,
    positive_limits,
    row_text,
    seeds_text,
    smooth,
)
from mhc_lab.report.figures.style import drawn_rows, row_styles

NAME = "gradient_norm"


def draw(material: Material) -> Plot | Absent:
    """A line a row, the baselines too: the geometric mean over seeds of the norm before clipping."""
    study = material.study
    rows, left_out = drawn_rows(study)
    lines: dict[str, SeedCurves] = {}
    points, seeds, runs = 0, [], []
    for row in rows:
        curves = _norms(material.training[row])
        line = over_seeds(curves, diverged_seeds(study, row), log=True)
        if line is not None:
            lines[row] = line
            points = max(points, *(len(x) for x, _ in curves.values()))
            seeds.append(len(curves))
            runs += [material.training[row][seed] for seed in curves]
    if not lines:
        return Absent(NAME, "no run logged a gradient norm above 0; run the study")

    low, high, log = positive_limits(list(lines.values()))
    baseline = study.baselines[0] if len(study.baselines) == 1 and study.baselines[0] in lines else None
    scene = Scene(
        xlim=(0, max(1.0, *(line.x[-1] for line in lines.values()))),
        ylim=(low, high),
        log=log,
        xlabel="training step",
        ylabel="gradient norm before clipping",
        repeated=baseline,
    )
    peaks = material.summary.frame.set_index("row")["max_grad_norm"]
    names = {row: row_text(study, row) + _peak_text(float(peaks[row])) for row in lines}
    figure, cut = lay_out(lines, row_styles(study), names, scene)
    missing = [row for row in rows if row not in lines]
    caption = (
        f"Gradient norm before clipping, geometric mean over {seeds_text(seeds)};"
        f" {bands_text(seeds, '95 % t intervals of its logarithm at each step')}.{lost_text(lines.values())} "
        f"After the paper's Fig. 5b. {points_text(runs, points)}{cut}"
    )
    caption += " Max is the largest norm of a single step, of all seeds." if (peaks[list(lines)] > 0).any() else ""
    caption += " Thin: the baseline." if baseline is not None and len(lines) > BANDS else ""
    caption += left_out + (f" Without a curve: {', '.join(missing)}." if missing else "")
    return Plot(NAME, "Gradient norm over training", caption, figure)


def _peak_text(peak: float) -> str:
    """Behind a row's name, on one line; nothing where no run has a record of it."""
    if not peak > 0:
        return ""
    return f", max\N{NO-BREAK SPACE}{peak:{',.0f' if 10 <= peak < 1e6 else '.2g'}}"


def _norms(runs: Mapping[int, Training]) -> dict[int, tuple[Array, Array]]:
    """By seed, the steps with a norm above 0, and the norms, smoothed as logarithms."""
    found = {}
    for seed, run in runs.items():
        there = np.isfinite(run.grad_norm) & (run.grad_norm > 0)
        if there.any():
            found[seed] = run.steps[there], np.exp(smooth(np.log(run.grad_norm[there])))
    return found
