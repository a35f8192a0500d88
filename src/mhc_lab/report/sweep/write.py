"""The files of a sweep's export."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from mhc_lab.errors import LabError, nearest
from mhc_lab.report.sweep import frames, tables
from mhc_lab.report.sweep.data import Sweep
from mhc_lab.report.sweep.importance import importances
from mhc_lab.report.sweep.table import Table
from mhc_lab.report.tables import FIGURES
from mhc_lab.report.texts import csv_text
from mhc_lab.run_folder import write_bytes

FORMATS = ("md", "latex", "csv", "svg", "png", "html")
PAGE, HTML, PROVENANCE = "sweep.md", "report.html", "provenance.json"
_TABLES = ("best", "pareto", "importance", "marginal", "trials")
_ENDINGS = {"md": "md", "latex": "tex", "csv": "csv"}


def write(sweep: Sweep, folder: Path, formats: Sequence[str] = FORMATS, *, provenance: dict[str, Any]) -> list[Path]:
    """Write tables, figures, the page sweep.md (with `md`) and provenance.json into `folder`; the paths, page first.

    `formats`: md, latex, csv, svg, png, html. What a former export left there of the same formats and this one has not
    is taken away. Raises LabError for an unknown format or a folder that cannot be written.
    """
    for name in formats:
        if name not in FORMATS:
            raise LabError(f"--format {name}: no such format of a sweep; {nearest(name, FORMATS)}")
    from mhc_lab.report.figures.plot import Plot
    from mhc_lab.report.sweep.figures import draw_all
    from mhc_lab.report.sweep.page import page

    judged = [importances(sweep, objective) for objective in range(len(sweep.objectives))]
    several = len(sweep.objectives) > 1
    first = ("pareto", tables.pareto_table(sweep)) if several else ("best", tables.best_table(sweep))
    important = [tables.importance_table(sweep, found, number) for number, found in enumerate(judged)]
    marginal = tables.marginal_table(sweep)

    files: dict[str, bytes] = {}
    if "md" in formats:
        files[f"{first[0]}.md"] = first[1].markdown().encode()
        files["importance.md"] = "\n".join(table.markdown() for table in important).encode()
        files["marginal.md"] = marginal.markdown().encode()
    if "latex" in formats and first[1].rows:
        files[f"{first[0]}.tex"] = first[1].latex(sweep.name).encode()
    if "csv" in formats:
        metrics = [objective.metric for objective in sweep.objectives]
        written: dict[str, pd.DataFrame] = {
            first[0]: frames.pareto_frame(sweep) if several else frames.best_frame(sweep),
            "importance": frames.importance_frame(zip(metrics, judged, strict=True)),
            "marginal": frames.marginal_frame(sweep),
            "trials": frames.trials_frame(sweep),
        }
        files |= {f"{name}.csv": csv_text(frame).encode() for name, frame in written.items()}
    # The page has the captions, so the figures are drawn for it alone too.
    found = draw_all(sweep, judged) if {"md", "svg", "png", "html"} & set(formats) else []
    for plot in found:
        if isinstance(plot, Plot):
            files |= {f"{FIGURES}/{plot.name}.svg": plot.svg.encode()} if "svg" in formats else {}
            files |= {f"{FIGURES}/{plot.name}.png": plot.png()} if "png" in formats else {}
    shown: list[tuple[str, Table]] = [first, *(("importance", table) for table in important), ("marginal", marginal)]
    if "html" in formats:
        from mhc_lab.report.sweep.html import html

        files = {HTML: html(sweep, [table for _, table in shown], found, provenance).encode()} | files
    if "md" in formats:
        files = {PAGE: page(sweep, shown, found, list(files)).encode()} | files
    files[PROVENANCE] = json.dumps(provenance, indent=1).encode() + b"\n"
    _write(folder, files, formats)
    return [folder / name for name in files]


def _write(folder: Path, files: Mapping[str, bytes], formats: Sequence[str]) -> None:
    former = [folder / f"{name}.{_ENDINGS[kind]}" for name in _TABLES for kind in formats if kind in _ENDINGS]
    former += [path for kind in ("svg", "png") if kind in formats for path in (folder / FIGURES).glob(f"*.{kind}")]
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, content)
        for path in former:
            if str(path.relative_to(folder)) not in files:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise LabError(
            f"{folder}: cannot be written: {error.strerror}; mend its permissions or choose another --results"
        ) from error
