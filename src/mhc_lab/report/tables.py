"""The files of an export: tables, figures, the report page, and the provenance beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mhc_lab.errors import LabError, nearest
from mhc_lab.report import latex, markdown
from mhc_lab.report.combine import load_all
from mhc_lab.report.frame import Study
from mhc_lab.report.layout import Layout, lay_out
from mhc_lab.report.provenance import mixture_lines, provenance, unfair
from mhc_lab.report.summary import GAPS, Summary, summarize
from mhc_lab.run_folder import ENDED, write_bytes, write_json, write_whole

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
    "csv": lambda summary, _layout: str(summary.frame.to_csv(index=False)),
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
    allow_mixed: bool = False,
    command: str = "",
) -> Exported:
    """Write tables, figures, page and provenance of a study into `results`/<study>, of several into `results`/<a>+<b>.

    `baseline` names another row to measure gaps from; `margin` and `gaps` are those of `summary.summarize`. The CSV has
    `summary.COLUMNS` in full precision. `command` is the command line that asked for the export.
    Raises LabError for an unknown format, study or row, a study without a finished run, studies that are not
    comparable, runs of different corpora or code (unless `allow_mixed`), or a folder that cannot be written.
    """
    chosen = list(dict.fromkeys(formats))
    for name in chosen:
        if name not in FORMATS:
            raise LabError(f"--format {name}: no such format; {nearest(name, FORMATS)}")
    if margin is not None and not margin > 0:
        raise LabError(f"--margin {margin:g}: must be above 0, in nats per token")
    if any(not gap > 0 for gap in gaps):
        raise LabError(f"--gap {', '.join(f'{gap:g}' for gap in gaps)}: must be above 0, in nats per token")
    study = load_all(results, [studies] if isinstance(studies, str) else studies, baseline)
    mixed = unfair(study)
    if mixed and not allow_mixed:
        raise LabError(f"{'; '.join(mixture_lines(mixed))}; --allow-mixed exports them all the same, with a warning")

    summary = summarize(study, margin=margin, gaps=gaps)
    layout = lay_out(study, summary)
    origin = provenance(study, command)
    try:
        study.folder.mkdir(parents=True, exist_ok=True)
        written = []
        for name in chosen:
            if name in TABLES:
                path = study.folder / TABLES[name]
                write_whole(path, _WRITERS[name](summary, layout))
                written.append(path)
        absent: list[Absent] = []
        if {"svg", "png", "html"} & set(chosen):
            drawn, absent = _draw(study, summary)
            written += _figures(study.folder / FIGURES, chosen, drawn)
            if "html" in chosen:
                written.append(_page(study, summary, layout, [*drawn, *absent], origin))
        write_json(study.folder / PROVENANCE, origin)
    except OSError as error:
        raise LabError(
            f"{study.folder}: cannot be written: {error.strerror}; mend its permissions or choose another --results"
        ) from error
    return Exported(
        [*written, study.folder / PROVENANCE],
        layout.warnings,
        [f"{figure.name}: {figure.reason}" for figure in absent],
        bool(study.cells["status"].isin(ENDED).all()),
    )


def _draw(study: Study, summary: Summary) -> tuple[list[Plot], list[Absent]]:
    from mhc_lab.report.figures import Absent, Material, Plot, draw_all

    found = draw_all(Material.read(study, summary))
    plots = [figure for figure in found if isinstance(figure, Plot)]
    return plots, [figure for figure in found if isinstance(figure, Absent)]


def _figures(folder: Path, formats: Sequence[str], plots: Sequence[Plot]) -> list[Path]:
    """Write the figures, and take away those of a former export that these runs do not allow."""
    written: list[Path] = []
    for kind in (name for name in ("svg", "png") if name in formats):
        folder.mkdir(exist_ok=True)
        for plot in plots:
            path = folder / f"{plot.name}.{kind}"
            write_bytes(path, plot.svg.encode() if kind == "svg" else plot.png())
            written.append(path)
        for stale in set(folder.glob(f"*.{kind}")) - set(written):
            stale.unlink()
    return written


def _page(
    study: Study, summary: Summary, layout: Layout, figures: Sequence[Plot | Absent], origin: dict[str, Any]
) -> Path:
    from mhc_lab.report.page import render

    path = study.folder / PAGE
    write_whole(path, render(study, summary, layout, figures, origin))
    return path
