"""A study as one HTML file that needs nothing else: no network, no font, no script but its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mhc_lab.errors import LabError
from mhc_lab.report.configs import settings
from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.figures.style import REFERENCE, row_styles
from mhc_lab.report.frame import Study
from mhc_lab.report.page.inline import inline
from mhc_lab.report.page.origin import facts
from mhc_lab.report.page.rows import RUN_COLUMNS, is_text, page_columns, rows
from mhc_lab.report.page.template import fill
from mhc_lab.report.summary import Summary

if TYPE_CHECKING:
    from mhc_lab.report.layout import Layout

TALL = 30  # rows from which on the table scrolls within the window, under its head


def render(
    study: Study, summary: Summary, layout: Layout, plots: Sequence[Plot | Absent], origin: Mapping[str, Any]
) -> str:
    """The page's HTML.

    `layout` has the rounded texts of the table and `summary.frame` the raw numbers that it sorts by; `plots` are the
    figures in order, with those that the runs do not allow; `origin` is the content of provenance.json.
    """
    table, notes = rows(study, summary, layout)
    baseline = study.baseline
    config, no_config = _configuration(study, baseline)
    colours = {REFERENCE, *(style.colour for style in row_styles(study).values())}
    return fill(
        "page.html",
        layout=layout,
        lead=_lead(study, config),
        state=_state(study),
        columns=[(column, "text" if is_text(column) else "number") for column in page_columns(layout)],
        run_columns=RUN_COLUMNS,
        rows=table,
        tall=len(table) >= TALL,
        notes=notes,
        figures=[(plot, inline(plot.svg, plot.name, plot.title, colours)) for plot in plots if isinstance(plot, Plot)],
        absent=[plot for plot in plots if isinstance(plot, Absent)],
        baseline=baseline,
        config=_grouped(config),
        no_config=no_config,
        facts=facts(origin),
        environments=origin["environments"],
    )


def _lead(study: Study, config: Mapping[str, str]) -> list[str]:
    """The sentence under the title, in parts: what is compared, with what, on what."""
    seeds = sorted(int(seed) for seed in study.cells["seed"].unique())
    fingerprints = study.cells["corpus_fingerprint"].dropna().unique()
    source = config.get("data.source", "")
    source += f" ({config['data.task']})" if source == "synthetic" and "data.task" in config else ""
    devices = study.cells["device"].dropna().unique()
    parts = [_count(len(study.rows), "row"), f"seed{'' if len(seeds) == 1 else 's'} {_ranges(seeds)}"]
    if source:
        parts.append(f"corpus {source}" + (f" {fingerprints[0]}" if len(fingerprints) == 1 else ""))
    return [*parts, *([f"on {', '.join(map(str, devices))}"] if len(devices) else [])]


def _state(study: Study) -> str:
    """How many runs there are and what became of them; rows may share runs."""
    counts = study.cells.drop_duplicates("run_id")["status"].value_counts()
    total = _count(int(counts.sum()), "run")
    if list(counts.index) == ["finished"]:
        return f"{total}, all finished"
    return f"{total}: {', '.join(f'{count} {status}' for status, count in counts.items())}"


def _configuration(study: Study, baseline: str) -> tuple[dict[str, str], str]:
    try:
        return settings(study, baseline), ""
    except LabError as error:
        return {}, str(error)


def _grouped(config: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Section -> key -> value; what stands outside any section comes last."""
    groups: dict[str, dict[str, str]] = {}
    for key, value in config.items():
        section, dot, name = key.partition(".")
        groups.setdefault(section if dot else "run", {})[name if dot else section] = value
    return groups


def _ranges(numbers: Sequence[int]) -> str:
    """0–4, 7: runs of neighbours drawn together, from three on."""
    parts: list[list[int]] = []
    for value in numbers:
        if parts and value == parts[-1][-1] + 1:
            parts[-1].append(value)
        else:
            parts.append([value])
    return ", ".join(f"{p[0]}–{p[-1]}" if len(p) > 2 else ", ".join(map(str, p)) for p in parts)


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
