"""Another baseline, and rows of several studies in one table: only where the runs are of one experiment."""

from __future__ import annotations

from collections.abc import Sequence
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
    configuration and corpus: it says what differs.
    """
    assert names, "no study"
    names = list(dict.fromkeys(names))
    studies = [load(results, name) for name in names]
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
        if row["control"] and row["baseline"] == former:
            rows.append({**row, "tells": baseline})
        else:
            rows.append({**row, "baseline": baseline} if row["baseline"] == former else row)
    # The paper's gaps are to the plain residual.
    rows = [{**row, "paper_loss_gap": None} for row in rows]
    return replace(study, spec={**study.spec, "baseline": baseline, "rows": rows})


def _united(results: Path, studies: Sequence[Study]) -> Study:
    first = studies[0]
    for other in studies[1:]:
        _check_comparable(first, other)
    rows: dict[str, dict[str, Any]] = {}
    designs: dict[str, dict[str, str] | None] = {}
    timed: dict[str, Any] = {}
    parts = []
    for study in studies:
        new_names = {}
        for row in study.rows:
            name, own = row["row"], _settings(study, row["row"])
            if name in rows and own is not None and designs[name] not in (None, own):
                name = f"{study.name}.{name}"
            new_names[row["row"]] = name
            designs[name] = designs.get(name) or own
        for row in study.rows:
            renamed: dict[str, Any] = {key: new_names[row[key]] for key in ("row", "baseline", "tells") if key in row}
            rows.setdefault(renamed["row"], {**row, **renamed})
        for name, entry in (study.timing or {"rows": {}})["rows"].items():
            entry = {**entry, "baseline": new_names.get(entry.get("baseline"))}
            timed.setdefault(new_names.get(name, name), entry)
        parts.append(study.cells.assign(row=study.cells["row"].map(new_names)))
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


def _settings(study: Study, row: str) -> dict[str, str] | None:
    """None where no run has begun."""
    try:
        return settings(study, row)
    except LabError:
        return None
