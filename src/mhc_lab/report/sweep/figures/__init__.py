"""The figures of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.sweep.data import Sweep
from mhc_lab.report.sweep.importance import Importances

__all__ = ["draw_all"]


def draw_all(sweep: Sweep, importances: Sequence[Importances]) -> list[Plot | Absent]:
    """Every figure that the trials allow, and for the others why not; `importances` has one an objective."""
    from mhc_lab.report.figures.style import drawing
    from mhc_lab.report.sweep.figures import contour, history, importance_bars, intermediate, parallel, pareto, slices

    objectives = range(len(sweep.objectives))
    with drawing():
        return [
            history.draw(sweep),
            *([pareto.draw(sweep)] if len(objectives) > 1 else []),
            *(slices.draw(sweep, objective) for objective in objectives),
            contour.draw(sweep, importances[0]),
            parallel.draw(sweep),
            *(importance_bars.draw(sweep, importances[objective], objective) for objective in objectives),
            intermediate.draw(sweep),
        ]
