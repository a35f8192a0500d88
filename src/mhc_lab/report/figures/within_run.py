"""Loss relative to the baseline's over the tokens of the runs (Fig. 6b of the paper)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.ticker import FuncFormatter

from mhc_lab.errors import LabError
from mhc_lab.report.configs import settings
from mhc_lab.report.curves import Training
from mhc_lab.report.figures.labels import EndLabel
from mhc_lab.report.figures.line_panels import Scene, lay_out
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.row_gaps import farthest
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
from mhc_lab.report.figures.style import INK, drawn_rows, row_styles
from mhc_lab.report.frame import Study
from mhc_lab.report.texts import count

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_EARLY = 0.2  # of the points, where losses differ by many times what they do at the end


def draw(material: Material, name: str) -> Plot | Absent:
    """A line a row: training loss in % of its baseline's at the same steps, hence on the same batches.

    Over steps where the runs do not say how many tokens a step has. Absent without a step that a row and its baseline
    logged with the same seed.
    """
    study = material.study
    rows, left_out = drawn_rows(study)
    rows = [row for row in rows if row != study.baseline_of(row)]
    tokens = {row: tokens_a_step(study, row) for row in study.baselines}
    known = all(tokens.values())
    lines: dict[str, SeedCurves] = {}
    points, seeds = 0, []
    for row in rows:
        baseline = study.baseline_of(row)
        scale = (tokens[baseline] if known else None) or 1
        curves = _percent(material.training.get(row, {}), material.training.get(baseline, {}), scale)
        line = over_seeds(curves, diverged_seeds(study, row))
        if line is not None:
            lines[row] = line
            points = max(points, *(len(x) for x, _ in curves.values()))
            seeds.append(len(curves))
    if not lines:
        return Absent(name, "no row and its baseline logged training steps with the same seed; run both")

    def behind(axes: Axes) -> None:
        axes.axhline(100, color=INK, linewidth=0.8)
        if known:
            axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))

    scene = Scene(
        xlim=(0, max(line.x[-1] for line in lines.values())),
        ylim=_limits(list(lines.values())),
        log=False,
        xlabel="training tokens" if known else "training step",
        ylabel="training loss / baseline's (%)",
        behind=behind,
        labels=[
            EndLabel(
                100, row_text(study, study.baselines[0], gap=False) if len(study.baselines) == 1 else "own baseline"
            )
        ],
    )
    figure = lay_out(lines, row_styles(study), {row: row_text(study, row, gap=True) for row in lines}, scene)
    missing = [row for row in rows if row not in lines]
    caption = (
        f"Training loss of each row in % of its baseline's at the same step, mean over {seeds_text(seeds)}; "
        f"{bands_text(seeds, '95 % paired t intervals at each step')}.{lost_text(lines.values())} "
        f"After the paper's Fig. 6b. {smoothing(points)} "
        f"The axis is chosen for the last {1 - _EARLY:.0%} of the steps."
    )
    caption += left_out + (f" Without a curve: {', '.join(missing)}." if missing else "")
    return Plot(name, "Relative loss over the tokens of training", caption, figure)


def tokens_a_step(study: Study, row: str) -> int | None:
    """Batch times sequence length; None where no run of the row has a config.yaml that says so."""
    try:
        known = settings(study, row)
        return int(known["data.batch_size"]) * int(known["model.sequence_length"])
    except (LabError, KeyError, ValueError):
        return None


def _percent(
    row: Mapping[int, Training], baseline: Mapping[int, Training], scale: float
) -> dict[int, tuple[Array, Array]]:
    """By seed, `scale` times the steps that both logged, and the row's loss in % of the baseline's there, smoothed."""
    found = {}
    for seed in sorted(row.keys() & baseline.keys()):
        steps, at_row, at_baseline = np.intersect1d(row[seed].steps, baseline[seed].steps, return_indices=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            percent = 100 * row[seed].train_loss[at_row] / baseline[seed].train_loss[at_baseline]
        finite = np.isfinite(percent)
        if finite.any():
            found[seed] = scale * steps[finite], smooth(percent[finite])
    return found


def _limits(lines: Sequence[SeedCurves]) -> tuple[float, float]:
    """The ends of the axis, for the later points of all rows but those that are far beyond the others."""
    late = [line.mean[int(_EARLY * len(line.x)) :] - 100 for line in lines]
    reach = [float(np.quantile(np.abs(part), 0.95)) for part in late]
    most = farthest(reach)
    seen = np.concatenate([np.clip(part, -most, most) for part, far in zip(late, reach, strict=True) if far <= most])
    low, high = min(0.0, float(seen.min())), max(0.0, float(seen.max()))
    margin = max(0.25 * (high - low), 0.1)
    return 100 + low - margin, 100 + high + margin
