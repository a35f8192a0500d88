"""What runs wrote as they went: the logged steps of metrics.jsonl, the last probe of gains.jsonl."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from mhc_lab.errors import LabError
from mhc_lab.files import GAINS_LINE, REPEAT, damaged, misfit, own_file
from mhc_lab.report.frame import Study
from mhc_lab.run_folder import ENDED, RunFolder

Array = NDArray[np.float64]
_Curve = TypeVar("_Curve")


@dataclass(frozen=True)
class Training:
    """The logged steps of a run, [k]: training loss in nats per token and gradient norm before clipping, each the mean
    over the steps since the line before."""

    steps: Array
    train_loss: Array
    grad_norm: Array


@dataclass(frozen=True)
class Probe:
    """The last probe of a run of L layers: gains, of composites from each start layer, and spread [L]; H_res of each
    layer and composites from it to the output, token means [L, n, n]."""

    step: int
    gain_forward: Array
    gain_backward: Array
    composite_gain_forward: Array
    composite_gain_backward: Array
    spread: Array
    h_res: Array
    h_res_composite: Array


def training(study: Study) -> dict[str, dict[int, Training]]:
    """By row and seed, of the runs that have a result (finished or diverged) and logged a step."""
    return _by_row(study, _training)


def last_probes(study: Study) -> dict[str, dict[int, Probe]]:
    """By row and seed, of the runs that finished. Raises LabError where those of a row are not alike."""
    found = _by_row(study, _last_probe, ("finished",))
    for row, probes in found.items():
        shapes = {probe.h_res.shape for probe in probes.values()}
        if len(shapes) > 1:
            told = " and ".join(f"{layers} layers of {n} streams" for layers, n, _ in sorted(shapes))
            raise LabError(f"{study.runs}: row {row}: gains.jsonl of its runs hold {told}: one is damaged; {REPEAT}")
    return found


def _by_row(
    study: Study, read: Callable[[RunFolder], _Curve | None], statuses: tuple[str, ...] = ENDED
) -> dict[str, dict[int, _Curve]]:
    seen: dict[str, _Curve | None] = {}  # rows may share runs
    found: dict[str, dict[int, _Curve]] = {row["row"]: {} for row in study.rows}
    cells = study.cells[study.cells["status"].isin(statuses)]
    for row, seed, run_id in cells[["row", "seed", "run_id"]].itertuples(index=False):
        if run_id not in seen:
            seen[run_id] = read(RunFolder(study.runs / run_id))
        value = seen[run_id]
        if value is not None:
            found[row][int(seed)] = value
    return found


def _training(folder: RunFolder) -> Training | None:
    lines = [line for line in folder.metrics() if "train_loss" in line]
    if not lines:
        return None
    # What was not finite is left out of a line.
    columns = ([line.get(key, np.nan) for line in lines] for key in ("step", "train_loss", "grad_norm"))
    return Training(*(np.array(column, dtype=np.float64) for column in columns))


def _last_probe(folder: RunFolder) -> Probe | None:
    line = _last_line(folder.gains_file)
    if line is None or not Probe.__dataclass_fields__.keys() <= line.keys():  # none, or an earlier mhc-lab's
        return None
    try:
        arrays = {name: np.array(line[name], dtype=np.float64) for name in Probe.__dataclass_fields__ if name != "step"}
    except (TypeError, ValueError) as error:
        raise damaged(folder.gains_file, "its last line holds what are no matrices") from error
    layers, n = (*arrays["h_res"].shape, 0, 0)[:2]
    for name, array in arrays.items():
        if not layers or array.shape != ((layers, n, n) if name.startswith("h_res") else (layers,)):
            raise damaged(folder.gains_file, f"its last line has no value for each layer in {name}")
    return Probe(step=line["step"], **arrays)


def _last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line: a study's matrices over all probes would take longer to read than its table to make.

    Raises LabError for one that is none; what stands behind the last newline is torn (killed while writing).
    """
    if not own_file(path).is_file():
        return None
    with path.open("rb") as file:
        size = file.seek(0, 2)
        block = 1 << 16
        while True:
            start = max(0, size - block)
            file.seek(start)
            lines = file.read().split(b"\n")[:-1]
            if len(lines) > 1 or (lines and start == 0):
                break
            if start == 0:
                return None
            block *= 4
    try:
        line = json.loads(lines[-1])
    except (ValueError, RecursionError) as error:
        raise damaged(path, "its last line is no JSON") from error
    if not isinstance(line, dict) or misfit(line, GAINS_LINE) or not isinstance(line.get("step", 0), int):
        raise damaged(path, "its last line is no line of a log")
    return line
