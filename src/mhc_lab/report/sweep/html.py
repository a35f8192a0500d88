"""A sweep as one HTML file, to be sent around like a grid's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import REFERENCE, variant_looks
from mhc_lab.report.page.inline import inline
from mhc_lab.report.page.origin import facts
from mhc_lab.report.page.template import fill
from mhc_lab.report.sweep.data import Sweep, value_text
from mhc_lab.report.sweep.figures import marks
from mhc_lab.report.sweep.page import search, short
from mhc_lab.report.sweep.table import Table
from mhc_lab.report.sweep.words import verdict

_MARKS = {REFERENCE, marks.TRIAL, marks.LOST, marks.PRUNED}


def html(sweep: Sweep, tables: Sequence[Table], found: Sequence[Plot | Absent], provenance: Mapping[str, Any]) -> str:
    """The page's HTML: the answer in words, the tables, the figures, what was searched, and where it comes from."""
    choices = [value_text(choice) for choice in sweep.parameter(sweep.by).choices] if sweep.by else []
    colours = _MARKS | {colour for colour, _ in variant_looks(choices).values()}
    return fill(
        "sweep.html",
        title=sweep.title,
        verdict=verdict(sweep),
        tables=[replace(table, title=short(sweep, table)) for table in tables],
        figures=[(plot, inline(plot.svg, plot.name, plot.title, colours)) for plot in found if isinstance(plot, Plot)],
        absent=[plot for plot in found if isinstance(plot, Absent)],
        search=search(sweep),
        facts=facts({key: value for key, value in provenance.items() if key not in ("kind", "sampler", "pruner")}),
    )
