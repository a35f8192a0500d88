"""The folder of a study, results/<study>/, and what its study.json holds. Torch-free."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from mhc_lab.config.run_id import run_id
from mhc_lab.config.schema import TrainerConfig
from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.files import GRID, SWEEP, TIMING, damaged, misfit
from mhc_lab.identity.code import Executed, code_of, together
from mhc_lab.identity.ledger import changed
from mhc_lab.residual import registry
from mhc_lab.run_folder import FOLDER_NAME, RunFolder, read_json, runs_dir, write_json
from mhc_lab.study.spec import Grid, Row
from mhc_lab.study.sweep_file import SweepSpec, resolve_sweep

OtherCode = Literal["ask", "keep", "rerun"]  # what becomes of results that other code made

# Folders of `results` that are no study's.
_TAKEN = ("runs", "bench", "retarget", "sinkhorn-analysis", "speed", "statistics")


class StudyFolder:
    """Paths of one study, and its study.json: which rows and seeds it has, and which runs fill them."""

    def __init__(self, results: Path, name: str) -> None:
        if not FOLDER_NAME.fullmatch(name) or name.lower() in _TAKEN:
            raise LabError(
                f"study '{shown(name)}': a study's name is at most 100 letters, digits and _ . + -, and not "
                f"{', '.join(_TAKEN)}"
            )
        self.results = results
        self.name = name
        self.path = results / name
        self.study_file = self.path / "study.json"
        self.timing_file = self.path / "timing.json"

    def content(self) -> dict[str, Any]:
        """study.json, or LabError with the nearest study."""
        content = self.stored()
        if content is None:
            known = [file.parent.name for file in self.results.glob("*/study.json")]
            raise LabError(f"no study '{self.name}' in {self.results}; {nearest(self.name, known)}")
        return content

    def stored(self) -> dict[str, Any] | None:
        """study.json, or None where there is none yet; LabError for one that is damaged, or of another study."""
        content = read_json(self.study_file)
        if content is None:
            return None
        wrong = misfit(content, SWEEP if content.get("kind") == "sweep" else GRID)
        for cell in [] if wrong else content.get("cells", []):
            if not _is_a_folders_name(cell["run_id"]):
                wrong = f"'{str(cell['run_id'])[:40]}' names no run"
        if wrong:
            raise damaged(self.study_file, wrong)
        return content

    def run(self, run_id: str) -> RunFolder:
        return RunFolder(runs_dir(self.results) / run_id)

    def lock(self) -> FileLock:
        """Held by the one command that runs the study; workers need not hold it."""
        return FileLock(self.path / "study.lock", timeout=0)

    def check(self, grid: Grid) -> None:
        """Refuse a grid whose rows give other runs than those that the study already holds under the same names."""
        stored = self.stored()
        if stored is None:
            return
        if stored.get("kind") == "sweep":
            raise LabError(f"study '{self.name}' is a sweep: choose another name with --study NAME")
        if Path(stored["grid"]).stem != grid.name:
            raise LabError(
                f"study '{self.name}' holds the grid {stored['grid']}: choose another name with --study NAME"
            )
        held = {(cell["row"], cell["seed"]): cell["run_id"] for cell in stored["cells"]}
        fingerprints = {cell.row: cell.corpus_fingerprint for cell in grid.cells}
        for (row, seed), held_id in held.items():
            if row not in fingerprints:
                continue
            now = run_id(grid.row(row).with_seed(seed), fingerprints[row])
            if now != held_id:
                raise LabError(
                    f"study '{self.name}' was made with other settings ({_difference(stored, grid, row)}); "
                    f"give this one another name with --study NAME to keep both"
                )

    def write(self, grid: Grid, *, storage: str, command: str) -> None:
        """Write study.json: the grid's rows and seeds added to those that the study already has."""
        stored = self.stored()
        # What a row has had since an earlier version stood in it.
        since = {"overrides": [], "baseline": grid.baseline, "control": False, "tuned": None}
        rows = {row["row"]: {**since, **row} for row in (stored["rows"] if stored else [])}
        cells = {(cell["row"], cell["seed"]): cell for cell in (stored["cells"] if stored else [])}
        rows.update({row.name: _row_entry(row) for row in grid.rows})
        for cell in grid.cells:
            cells[cell.row, cell.seed] = {"row": cell.row, "seed": cell.seed, "run_id": cell.run_id}
        order = [row.name for row in grid.rows]
        order += [name for name in rows if name not in order]
        ordered = sorted(cells.values(), key=lambda cell: (order.index(cell["row"]), cell["seed"]))
        timing: dict[str, str] = {}
        for entry in ordered:
            timing.setdefault(entry["row"], entry["run_id"])
        content = {
            "study": self.name,
            "grid": grid.origin,
            "title": grid.title,
            "baseline": grid.baseline,
            "command": command,
            "created": stored["created"] if stored else datetime.datetime.now(datetime.UTC).isoformat(),
            "overrides": lasting(grid.overrides),
            "storage": storage,
            "rows": [rows[name] for name in order],
            "cells": ordered,
            "timing_config": timing,
        }
        self._write(content)

    def is_sweep(self) -> bool:
        """Whether there is a study, and it is a sweep."""
        return (self.stored() or {}).get("kind") == "sweep"

    def write_sweep(self, spec: SweepSpec, *, storage: str, command: str, other_code: OtherCode) -> None:
        """Write study.json of a sweep: what workers, here or elsewhere, resolve again."""
        stored = self.stored()
        content = {
            "study": self.name,
            "kind": "sweep",
            "sweep": spec.origin,
            "title": spec.title,
            "command": command,
            "created": stored["created"] if stored else datetime.datetime.now(datetime.UTC).isoformat(),
            "storage": storage,
            "config_dir": None if spec.config_dir is None else str(spec.config_dir.absolute()),
            "other_code": other_code,
            "spec": dict(spec.content),
        }
        self._write(content)

    def sweep(self) -> SweepSpec:
        """The sweep as study.json holds it."""
        content = self.content()
        return resolve_sweep(
            content["spec"],
            name=self.name,
            origin=content["sweep"],
            where=str(self.study_file),
            config_dir=None if content["config_dir"] is None else Path(content["config_dir"]),
        )

    def _write(self, content: dict[str, Any]) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            write_json(self.study_file, content)
        except OSError as error:
            raise LabError(f"{self.path}: cannot be written: {error.strerror}; choose another --results") from error

    def timed(self) -> bool:
        """Whether timing.json covers the runs that the study would time now, with the code of now."""
        timing = read_json(self.timing_file, TIMING)
        stored = self.stored()
        if timing is None or stored is None:
            return False
        timed = {row: entry.get("run_id") for row, entry in timing["rows"].items()}
        if timed != stored["timing_config"]:
            return False
        now = together(code_of(Executed.by(self.run(run_id).config())) for run_id in timed.values())
        return not changed(str(timing.get("code_fingerprint")), timing.get("definitions"), now)


def _is_a_folders_name(name: str) -> bool:
    """Whether a run's id, which a file says, stays within the folder of runs."""
    return 0 < len(name) <= 255 and name not in (".", "..") and not set(name) & set("/\0")


def lasting(overrides: Sequence[str]) -> list[str]:
    """The overrides that say what a study is, not where and how it runs."""
    passing = {f"trainer.{f.name}" for f in dataclasses.fields(TrainerConfig) if not f.metadata["in_id"]}
    keys = [override.partition("=")[0] for override in overrides]
    return [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key not in passing and key.partition(".")[0] not in ("launcher", "tracking")
    ]


def _row_entry(row: Row) -> dict[str, Any]:
    residual = row.config.residual
    modes = {toggle: registry.mode(residual, toggle) for toggle in ("h_res", "h_pre", "h_post")}
    return {
        "row": row.name,
        "overrides": list(row.overrides),
        "baseline": row.baseline,
        "control": row.config.control,
        "variant": residual.variant,
        **modes,
        "streams": registry.stream_count(residual),
        "paper_loss_gap": row.paper_loss_gap,
        "tuned": row.tuned,
    }


def _difference(stored: dict[str, Any], grid: Grid, row: str) -> str:
    """What differs, in words: the shared overrides where they do, else the row."""
    overrides = lasting(grid.overrides)
    was, now = _only(stored["overrides"], overrides), _only(overrides, stored["overrides"])
    if was or now:
        return f"then {' '.join(was) or 'no override'}, now {' '.join(now) or 'no override'}"
    return f"row '{row}' or the corpus has changed since"


def _only(overrides: Sequence[str], others: Sequence[str]) -> list[str]:
    return [override for override in overrides if override not in others]
