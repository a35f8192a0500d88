"""sweep.md, the page that a reader opens first: the tables, what they mean, and the figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mhc_lab.report.figures.plot import Absent, Plot
from mhc_lab.report.sweep.data import Sweep, value_text
from mhc_lab.report.sweep.table import Table, escape
from mhc_lab.report.tables import FIGURES


def page(
    sweep: Sweep, tables: Sequence[tuple[str, Table]], found: Sequence[Plot | Absent], files: Sequence[str]
) -> str:
    """The Markdown; `tables` (with the names of their files, less the ending) stand in it, the first above the space
    and the figures. It links to what is among `files`."""
    (_, first), *others = tables
    lines = [f"# {escape(sweep.title)}", "", f"`{sweep.command}`", "", f"## {escape(short(sweep, first))}", ""]
    lines += [first.markdown(0), "## What was searched", "", *(f"- {escape(line)}" for line in search(sweep)), ""]
    plots = [figure for figure in found if isinstance(figure, Plot)]
    if plots:
        lines += ["## Figures", ""]
    for plot in plots:
        lines += [f"### {escape(plot.title)}", ""]
        path = next((p for kind in ("svg", "png") if (p := f"{FIGURES}/{plot.name}.{kind}") in files), None)
        if path:
            lines += [f"![{escape(plot.title)}]({path})", ""]
        lines += [escape(plot.caption), ""]
    for _, table in others:
        lines += [f"## {escape(short(sweep, table))}", "", table.markdown(0)]
    absent = [figure for figure in found if isinstance(figure, Absent)]
    if absent:
        lines += ["## Figures that these trials do not allow", ""]
        lines += [*(f"- {escape(figure.name)}: {escape(figure.reason)}." for figure in absent), ""]
    tabular = [name for name in files if "/" not in name]
    if tabular:
        lines += ["## Files", "", *(f"- [{escape(name)}]({name})" for name in tabular), ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def short(sweep: Sweep, table: Table) -> str:
    """A table's title without the sweep's title, which stands above."""
    return table.title.removesuffix(f": {sweep.title}")


def search(sweep: Sweep) -> list[str]:
    """The space, what is minimised and how, and why trials failed, a line each."""
    lines = []
    for parameter in sweep.parameters:
        when = " and ".join(
            f"{sweep.names.get(key, key)} is {' or '.join(map(value_text, values))}"
            for key, values in parameter.when.items()
        )
        lines.append(f"{parameter.key}: {parameter.words}{f', where {when}' if when else ''}")
    minimised = ", ".join(objective.text for objective in sweep.objectives)
    lines += [
        f"Minimised: {minimised}; {len(sweep.trials)} of {sweep.budget} trials "
        f"({sweep.state_words()}), seeds {', '.join(map(str, sweep.seeds))}",
        f"Sampler: {_settings(sweep.sampler)}; pruner: {_settings(sweep.pruner) or 'none'}",
    ]
    if sweep.overrides:
        lines.append(f"Shared by all trials: {' '.join(sweep.overrides)}")
    failed = [trial for trial in sweep.trials if trial.state == "failed"]
    for trial in failed[:5]:
        first = trial.reason.strip().splitlines()
        lines.append(f"Trial {trial.number} failed: {first[0][:160] if first else 'no reason given'}")
    if len(failed) > 5:
        lines.append(f"… and {len(failed) - 5} more failed trials: trials.csv has their reasons")
    return lines


def _settings(given: Mapping[str, object]) -> str:
    return ", ".join(f"{key} {value}" for key, value in given.items())
