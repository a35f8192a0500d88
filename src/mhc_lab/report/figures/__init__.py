"""The paper's figures, drawn from one's own runs."""

from __future__ import annotations

from mhc_lab.report.figures.plot import Absent, Material, Plot

__all__ = ["Absent", "Material", "Plot", "draw_all"]


def draw_all(material: Material) -> list[Plot | Absent]:
    """Every figure that the runs allow, in the order of a reader's questions: is it better, at what price, is it
    stable, what do the streams do, does it last; for the others, why not."""
    from mhc_lab.report.figures import (
        gains,
        gradient_norm,
        loss_gap,
        loss_steps,
        matrices,
        quality_cost,
        scaling,
        spread,
    )
    from mhc_lab.report.figures.style import drawing

    figures = (loss_gap, loss_steps, quality_cost, gradient_norm, gains, matrices, spread, scaling)
    with drawing():
        return [figure.draw(material) for figure in figures]
