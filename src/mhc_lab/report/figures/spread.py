"""How far the streams differ behind each layer: what there is to mix."""

from __future__ import annotations

import numpy as np

from mhc_lab.report.figures.labels import EndLabel
from mhc_lab.report.figures.line_panels import Scene, lay_out
from mhc_lab.report.figures.plot import Absent, Material, Plot
from mhc_lab.report.figures.seed_curves import SeedCurves, bands_text, over_seeds, positive_limits, row_text, seeds_text
from mhc_lab.report.figures.style import MUTED, drawn_rows, row_styles

NAME = "spread"
EQUAL = 1e-6  # relative, of fp32 streams: what is left of equal ones after rounding


def draw(material: Material) -> Plot | Absent:
    """A line a row with several streams, from the last probe of the runs that finished."""
    study = material.study
    several = [row["row"] for row in study.rows if row["streams"] > 1]
    if not several:
        return Absent(NAME, "every row has a single stream; add one with residual.streams=2 or more")
    rows, left_out = drawn_rows(study, several)
    lines: dict[str, SeedCurves] = {}
    equal, missing, seeds = [], [], []
    for row in rows:
        spreads = {seed: probe.spread for seed, probe in material.probes[row].items()}
        if not spreads:
            missing.append(row)
        elif all((spread <= EQUAL).all() for spread in spreads.values()):
            equal.append(row)
        else:
            layers = {seed: np.arange(1, len(spread) + 1, dtype=float) for seed, spread in spreads.items()}
            curves = {seed: (layers[seed], np.maximum(spread, EQUAL)) for seed, spread in spreads.items()}
            line = over_seeds(curves, log=True)
            assert line is not None
            lines[row] = line
            seeds.append(len(spreads))
    if not lines:
        return Absent(NAME, _nothing(equal))

    low, high, log = positive_limits(list(lines.values()))
    last = max(2.0, *(line.x[-1] for line in lines.values()))
    beside = 0.02 * (last - 1)  # room for the markers at both ends
    scene = Scene(
        xlim=(1 - beside, last + beside),
        ylim=(low, high),
        log=log,
        xlabel="layer (attention and FFN count as one each)",
        ylabel="spread of the streams\n(|x − mean| / |x|)",
        labels=[EndLabel(low, f"equal streams: {', '.join(equal)}", colour=MUTED)] if equal else (),
    )
    figure, cut = lay_out(lines, row_styles(study), {row: row_text(study, row) for row in lines}, scene)
    caption = (
        f"Relative distance of the streams from their mean behind each layer, at the end of training; geometric mean "
        f"over {seeds_text(seeds)} that finished; {bands_text(seeds, '95 % t intervals of its logarithm')}.{cut}"
    )
    caption += f" Below {EQUAL:g}, which is rounding, streams count as equal." if equal else ""
    caption += left_out + (f" Without a probe: {', '.join(missing)}." if missing else "")
    return Plot(NAME, "Spread of the streams over depth", caption, figure)


def _nothing(equal: list[str]) -> str:
    if equal:
        return f"the streams of {', '.join(equal)} stay equal; break the symmetry with residual.expand=scaled"
    return "no run with several streams finished with a probe; run the study"
