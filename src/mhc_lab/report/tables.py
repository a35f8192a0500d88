"""The files of an export: tables, figures, the report page, and the provenance beside them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.report import latex, markdown
from mhc_lab.report.combine import load_all
from mhc_lab.report.frame import Study
from mhc_lab.report.layout import NOTES, Layout, Notes, lay_out, narrowed
from mhc_lab.report.provenance import mixture_lines, provenance, unfair
from mhc_lab.report.summary import GAPS, Summary, summarize
from mhc_lab.report.texts import csv_text
from mhc_lab.run_folder import ENDED, write_bytes

if TYPE_CHECKING:
    from mhc_lab.report.figures import Absent, Plot

TABLES = {"md": "table.md", "latex": "table.tex", "csv": "table.csv"}
PAGE = "report.html"
FIGURES = "figures"
PROVENANCE = "provenance.json"
FORMATS = (*TABLES, "svg", "png", "html")

_WRITERS: dict[str, Callable[[Summary, Layout], str]] = {
    "md": lambda _summary, layout: markdown.render(layout),
    "latex": lambda _summary, layout: latex.render(layout),
    "csv": lambda summary, _layout: csv_text(summary.frame),
}


@dataclass(frozen=True)
class Exported:
    """`paths` written, the page last but for the provenance; `warnings` are for the user, `absent` the figures that the
    runs do not allow; `complete`: every cell has a result."""

    paths: list[Path]
    warnings: list[str]
    absent: list[str]
    complete: bool


def export(
    results: Path,
    studies: str | Sequence[str],
    formats: Sequence[str] = FORMATS,
    *,
    baseline: str | None = None,
    margin: float | None = None,
    gaps: Sequence[float] = GAPS,
    columns: Sequence[str] = (),
    notes: Notes = "full",
    allow_mixed: bool = False,
    command: str = "",
) -> Exported:
    """Write tables, figures, page and provenance of a study into `results`/<study>, of several into `results`/<a>+<b>.

    `baseline` names another row to measure gaps from; `margin` and `gaps` are those of `summary.summarize`. The CSV has
    `summary.COLUMNS` in full precision; Markdown and LaTeX have the `columns` and `notes` of `layout.narrowed`.
    `command` is the command line that asked for the export.
    Raises LabError for an unknown format, column, study or row, a study without a finished run, studies that are not
    comparable, runs of different corpora or code (unless `allow_mixed`), or a folder that cannot be written.
    """
    chosen = list(dict.fromkeys(formats))
    for name in chosen:
        if name not in FORMATS:
            raise LabError(f"--format {name}: no such format; {nearest(name, FORMATS)}")
    if margin is not None and not 0 < margin < math.inf:
        raise LabError(f"--margin {margin:g}: must be a number above 0, in nats per token")
    if any(not 0 < gap < math.inf for gap in gaps):
        raise LabError(f"--gap {', '.join(f'{gap:g}' for gap in gaps)}: must be numbers above 0, in nats per token")
    if notes not in NOTES:
        raise LabError(f"--notes {shown(notes)}: {nearest(notes, NOTES)}")
    study = load_all(results, [studies] if isinstance(studies, str) else studies, baseline)
    mixed = unfair(study)
    if mixed and not allow_mixed:
        raise LabError(f"{'; '.join(mixture_lines(mixed))}; --allow-mixed exports them all the same, with a warning")

    summary = summarize(study, margin=margin, gaps=gaps)
    layout = lay_out(study, summary)
    printed = narrowed(layout, columns, notes)
    origin = provenance(study, command)
    # All of it is made before the first file is written: what lies in the folder is of one export.
    files = {TABLES[name]: _WRITERS[name](summary, printed).encode() for name in chosen if name in TABLES}
    plots: list[Plot] = []
    absent: list[Absent] = []
    if {"svg", "png", "html"} & set(chosen):
        plots, absent = _draw(study, summary)
    files |= {f"{FIGURES}/{plot.name}.svg": plot.svg.encode() for plot in plots if "svg" in chosen}
    files |= {f"{FIGURES}/{plot.name}.png": plot.png() for plot in plots if "png" in chosen}
    if "html" in chosen:
        from mhc_lab.report.page import render

        files[PAGE] = render(study, summary, layout, [*plots, *absent], origin).encode()
    files[PROVENANCE] = json.dumps(origin, indent=1).encode() + b"\n"
    _write(study.folder, files, chosen)
    return Exported(
        [study.folder / name for name in files],
        layout.warnings,
        [f"{figure.name}: {figure.reason}" for figure in absent],
        bool(study.cells["status"].isin(ENDED).all()),
    )


def _draw(study: Study, summary: Summary) -> tuple[list[Plot], list[Absent]]:
    from mhc_lab.report.figures import Absent, Material, Plot, draw_all

    found = draw_all(Material.read(study, summary))
    plots = [figure for figure in found if isinstance(figure, Plot)]
    return plots, [figure for figure in found if isinstance(figure, Absent)]


def _write(folder: Path, files: Mapping[str, bytes], formats: Sequence[str]) -> None:
    """Write the files, and take away figures of a former export that these runs do not allow."""
    try:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(folder / name, content)
        for kind in ("svg", "png"):
            if kind in formats:
                for path in (folder / FIGURES).glob(f"*.{kind}"):
                    if f"{FIGURES}/{path.name}" not in files:
                        path.unlink()
    except OSError as error:
        raise LabError(
            f"{folder}: cannot be written: {error.strerror}; mend its permissions or choose another --results"
        ) from error
