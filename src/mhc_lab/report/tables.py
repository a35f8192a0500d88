"""The files of an export: the table as CSV, Markdown and LaTeX, its figure, and the provenance beside them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console

from mhc_lab.errors import LabError, nearest
from mhc_lab.report import latex, markdown
from mhc_lab.report.figures import loss_gap_svg
from mhc_lab.report.frame import Study, load
from mhc_lab.report.layout import Layout, lay_out
from mhc_lab.report.provenance import mixture_lines, provenance
from mhc_lab.report.summary import Summary, summarize
from mhc_lab.run_folder import write_json, write_whole

FILES = {"md": "table.md", "latex": "table.tex", "csv": "table.csv", "svg": "loss_gap.svg"}
PROVENANCE = "provenance.json"

_WRITERS: dict[str, Callable[[Study, Summary, Layout], str]] = {
    "md": lambda _study, _summary, layout: markdown.render(layout),
    "latex": lambda _study, _summary, layout: latex.render(layout),
    "csv": lambda _study, summary, _layout: str(summary.frame.to_csv(index=False)),
    "svg": lambda study, summary, _layout: loss_gap_svg(study, summary),
}


def export(results: Path, study: str, formats: Sequence[str] = tuple(FILES), command: str = "") -> list[Path]:
    """Write the tables of a study and its provenance.json into `results`/<study>; returns their paths.

    The CSV has `summary.COLUMNS` in full precision. `command` is the command line that asked for the export.
    Raises LabError for an unknown format or study, a study without a finished run, or a folder that cannot be
    written. Runs that should be alike and are not are warned of on stderr.
    """
    for name in formats:
        if name not in FILES:
            raise LabError(f"--format {name}: no such format; {nearest(name, FILES)}")
    loaded = load(results, study)
    summary = summarize(loaded)
    layout = lay_out(loaded, summary)
    origin = provenance(loaded, command)
    for line in mixture_lines(origin["mixtures"]):
        Console(stderr=True, soft_wrap=True).print(f"warning: {study}: {line}", markup=False, highlight=False)

    written = []
    try:
        for name in dict.fromkeys(formats):
            path = loaded.folder / FILES[name]
            write_whole(path, _WRITERS[name](loaded, summary, layout))
            written.append(path)
        write_json(loaded.folder / PROVENANCE, origin)
    except OSError as error:
        raise LabError(
            f"{loaded.folder}: cannot be written: {error.strerror}; mend its permissions or choose another --results"
        ) from error
    return [*written, loaded.folder / PROVENANCE]
