"""Another baseline, and rows of several studies in one table: only where the runs are of one experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from mhc_lab.errors import LabError, nearest
from mhc_lab.report.configs import compare, settings
from mhc_lab.report.frame import Study, load
from mhc_lab.run_folder import ENDED


def load_all(results: Path, names: Sequence[str], baseline: str | None = None) -> Study:
    """The studies `names` as one, measured from `baseline` where that is given.

    Raises LabError for a study or row that is not there, and for studies whose baselines are not of one
    configuration: it says what differs.
    """
    assert names, "no study"
    studies = [load(results, name) for name in dict.fromkeys(names)]
    if baseline is not None:
        studies = [_rebased(study, baseline) for study in studies]
    return studies[0] if len(studies) == 1 else _united(results, studies)


def _rebased(study: Study, baseline: str) -> Study:
    """The rows that share the baseline of row `baseline`, measured from that row itself."""
    names = [row["row"] for row in study.rows]
    if baseline not in names:
        raise LabError(f"--baseline {baseline}: study '{study.name}' has no such row; {nearest(baseline, names)}")
    former = study.baseline_of(baseline)
    if former == baseline:
        return replace(study, spec={**study.spec, "baseline": baseline})
    if next(row for row in study.rows if row["row"] == baseline)["control"]:
        raise LabError(f"--baseline {baseline}: the control arm of study '{study.name}' cannot be the baseline")
    rows = []
    for row in study.rows:
        if row["baseline"] == former:
            # The paper's gaps are to the plain residual.
            row = {**row, "baseline": baseline, "paper_loss_gap": None}
            row |= {"repeats": former} if row["control"] else {}
        rows.append(row)
    return replace(study, spec={**study.spec, "baseline": baseline, "rows": rows})


def _united(results: Path, studies: Sequence[Study]) -> Study:
    first = studies[0]
    for other in studies[1:]:
        _check_comparable(first, other)
    rows: dict[str, dict[str, Any]] = {}
    held: dict[str, tuple[Study, str]] = {}  # by name in the table, a study that has the row, and its name there
    timed: dict[str, Any] = {}
    parts = []
    for study in studies:
        names = {row["row"]: _name(held, study, row["row"]) for row in study.rows}
        for row in study.rows:
            renamed: dict[str, Any] = {key: names[row[key]] for key in ("row", "baseline", "repeats") if key in row}
            rows.setdefault(renamed["row"], {**row, **renamed})
            held.setdefault(renamed["row"], (study, row["row"]))
        for row_name, entry in (study.timing or {"rows": {}})["rows"].items():
            if row_name in names:
                timed.setdefault(names[row_name], {**entry, "baseline": names.get(entry["baseline"])})
        parts.append(study.cells.assign(row=study.cells["row"].map(names)))
    cells = pd.concat(parts, ignore_index=True)
    # A cell that two studies hold is one run, or one design run twice: the first that has a result counts.
    cells = cells.assign(ended=cells["status"].isin(ENDED)).sort_values("ended", ascending=False, kind="stable")
    cells = cells.drop_duplicates(["row", "seed"]).drop(columns="ended").sort_index().reset_index(drop=True)
    name = "+".join(study.name for study in studies)
    spec = {
        "study": name,
        "title": "; ".join(dict.fromkeys(study.title for study in studies)),
        "baseline": first.baseline,
        "command": "; ".join(str(study.spec["command"]) for study in studies),
        "overrides": list(dict.fromkeys(override for study in studies for override in study.spec["overrides"])),
        "rows": list(rows.values()),
    }
    timing = {**(first.timing or {}), "rows": timed} if timed else None
    return Study(results / name, first.runs, spec, timing, cells)


def _check_comparable(first: Study, other: Study) -> None:
    if first.baseline != other.baseline:
        raise LabError(
            f"'{first.name}' is measured from '{first.baseline}', '{other.name}' from '{other.baseline}': "
            f"name a row that both have with --baseline"
        )
    unlike = compare(settings(first, first.baseline), settings(other, other.baseline))
    if unlike:
        told = "; ".join(f"{key}: {was} and {now}" for key, was, now in unlike)
        raise LabError(
            f"studies '{first.name}' and '{other.name}' cannot stand in one table: "
            f"the runs of their baseline '{first.baseline}' differ in {told}"
        )


def _name(held: Mapping[str, tuple[Study, str]], study: Study, row: str) -> str:
    """What a row is called in the table: its own name, unless another design has it already."""
    for name, (other, theirs) in held.items():
        if theirs == row and _same(other, study, row):
            return name
    return f"{study.name}.{row}" if row in held else row


def _same(one: Study, other: Study, row: str) -> bool:
    """Whether a row of two studies is one design: by its runs' settings, before there are any by what it overrides."""
    try:
        return settings(one, row) == settings(other, row)
    except LabError:
        entries = (next(entry for entry in study.rows if entry["row"] == row) for study in (one, other))
        return len({tuple(sorted(map(str, entry["overrides"]))) for entry in entries}) == 1
