"""Grid files -> the cells of a study. Torch-free.

# mhc-lab ablate mygrid
title: What the table shows, trained on {data}
baseline: identity                  # the row that gaps are measured from
seeds: [0, 1, 2, 3, 4]
overrides: [trainer.max_steps=200]  # shared by all rows; keys that a row's variant lacks are dropped
rows:
  identity: {overrides: [residual=identity], paper_loss_gap: 0.0}
  mhc: {overrides: [residual=mhc]}
  small: {overrides: [residual=identity, model.dim=32], baseline: small}   # a row may name a baseline of its own
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhc_lab.config.compose import check_typed, compose, default_option, find_file, options, read_yaml
from mhc_lab.config.run_id import run_id
from mhc_lab.config.schema import RunConfig
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError, nearest, shown
from mhc_lab.study.keys import known_keys, override_list, refuse_seed, refuse_unread, seed_list
from mhc_lab.study.space import Point, override

_GRID_KEYS = ("title", "baseline", "seeds", "overrides", "rows")
_ROW_KEYS = ("overrides", "baseline", "paper_loss_gap")
_ROW_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]{0,99}")
_MOST_ROWS = 1000
_MOST_CELLS = 100_000  # a slip of the keyboard


@dataclass(frozen=True)
class Row:
    """A line of the table: its configuration (of seed 0), the row that its gap is measured from, and the gap that the
    paper gives for it, if any. `tuned`: the settings among its overrides that a sweep found best, for its table."""

    name: str
    overrides: tuple[str, ...]
    baseline: str
    config: RunConfig
    paper_loss_gap: float | None
    tuned: Mapping[str, Any] | None = None  # "sweep", "overrides", and "seeds" of the sweep

    def with_seed(self, seed: int) -> RunConfig:
        return dataclasses.replace(self.config, seed=seed)


@dataclass(frozen=True)
class Tuned:
    """What a sweep found best for each value of the setting that it tunes apart (`by`): the other settings."""

    sweep: str
    by: str
    best: Mapping[Any, Point]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Cell:
    """A place in the grid, and the run that fills it. Rows that come to the same configuration share their runs."""

    row: str
    seed: int
    config: RunConfig
    run_id: str
    corpus_fingerprint: str


@dataclass(frozen=True)
class Grid:
    """A grid file resolved; `overrides` are the shared ones, the command line's last. Rows keep the file's order.

    `baseline` is that of all rows that name none of their own.
    """

    name: str
    origin: str
    title: str
    baseline: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    cells: tuple[Cell, ...]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def alike(self) -> list[list[str]]:
        """The rows, those that come to the same settings, and so to the same runs, together."""
        rows: dict[str, list[str]] = {}
        for cell in self.cells:
            if cell.seed == self.seeds[0]:
                rows.setdefault(cell.run_id, []).append(cell.row)
        return list(rows.values())


def load_grid(
    name_or_path: str,
    seeds: Sequence[int] | None = None,
    shared_overrides: Sequence[str] = (),
    config_dir: Path | None = None,
    tuned: Tuned | None = None,
    title: str | None = None,
) -> Grid:
    """Resolve a grid of conf/grid, or a file of one's own.

    `seeds` replace those of the file; `shared_overrides` come after the file's, and a row's own win over both. `tuned`
    gives each row what a sweep found best for it, which the row's own keys win over too. `title` replaces the file's,
    in which {data} stands for the corpus that the baseline trains on.
    Raises LabError for anything wrong in the file, the overrides or the seeds.
    """
    file = find_file(name_or_path, options("grid", config_dir), "grid")
    content = read_yaml(file)
    known_keys(content, _GRID_KEYS, str(file))
    check_typed(shared_overrides)
    shared = (*override_list(content.get("overrides"), f"{file}: overrides"), *shared_overrides)
    for text in shared:
        refuse_seed(text)
    baseline = content.get("baseline")
    rows = _rows(content.get("rows"), str(baseline), shared, file, config_dir)
    chosen_seeds = seed_list(list(seeds) if seeds is not None else content.get("seeds"), str(file))
    if len(rows) * len(chosen_seeds) > _MOST_CELLS:
        raise LabError(
            f"{file}: {len(rows)} rows x {len(chosen_seeds)} seeds: at most {_MOST_CELLS} cells make a study"
        )
    if tuned is not None:
        rows = tuple(_tuned(row, tuned, shared, file, config_dir) for row in rows)
    names = [row.name for row in rows]
    if baseline in names and next(row for row in rows if row.name == baseline).baseline != baseline:
        raise LabError(f"{file}: baseline '{baseline}' names a baseline of its own: remove it from the row")
    if baseline not in names:
        hint = f"; {nearest(str(baseline), names)}" if baseline is not None else ", for example baseline: identity"
        raise LabError(f"{file}: baseline must name one of the rows{hint}")
    _check_baselines(rows, file)
    refuse_unread(shared, [row.config for row in rows], str(file), "row")
    measured_against = next(row for row in rows if row.name == baseline)
    return Grid(
        name=file.stem,
        origin=name_or_path,
        title=title or str(content.get("title", file.stem)).replace("{data}", data_words(measured_against.config)),
        baseline=str(baseline),
        rows=rows,
        seeds=chosen_seeds,
        overrides=shared,
        cells=tuple(_cell(row, seed) for row in rows for seed in chosen_seeds),
    )


def data_words(config: RunConfig) -> str:
    """The corpus as a title has it."""
    if config.data.source == "synthetic":
        return f"the task {config.data.task}"
    if config.data.source == "text":
        names = [Path(file).name for file in config.data.files]
        return names[0] if len(names) == 1 else f"{len(names)} text files"
    if config.data.source == "installed":
        return "installed Python packages"
    return "Python's standard library"


def _rows(content: Any, baseline: str, shared: Sequence[str], file: Path, config_dir: Path | None) -> tuple[Row, ...]:
    if not isinstance(content, dict) or not content:
        raise LabError(f"{file}: rows must be a mapping of at least one row, name: {{overrides: [...]}}")
    if len(content) > _MOST_ROWS:
        raise LabError(f"{file}: {len(content)} rows: at most {_MOST_ROWS} make a table")
    return tuple(_row(name, value, baseline, shared, file, config_dir) for name, value in content.items())


def _tuned(row: Row, tuned: Tuned, shared: Sequence[str], file: Path, config_dir: Path | None) -> Row:
    """The row with what the sweep found best for its value of the sweep's `by`."""
    value = _chosen(tuned.by, row, shared, config_dir)
    if value not in tuned.best:
        known = ", ".join(map(str, tuned.best))
        raise LabError(
            f"{file}: row '{row.name}': the sweep '{tuned.sweep}' has no finished trial with "
            f"{override(tuned.by, value)} (it has {known}): add it to its choices, or leave the row out"
        )
    of_its_own = {text.partition("=")[0] for text in row.overrides}
    found = [override(key, best) for key, best in tuned.best[value].items() if key not in of_its_own]
    own = (*found, *row.overrides)
    try:
        config = compose(own, shared=shared, config_dir=config_dir)
    except LabError as error:
        raise LabError(f"{file}: row '{row.name}', tuned by '{tuned.sweep}': {error}") from error
    origin = {"sweep": tuned.sweep, "overrides": found, "seeds": list(tuned.seeds)}
    return dataclasses.replace(row, overrides=own, config=config, tuned=origin)


def _chosen(key: str, row: Row, shared: Sequence[str], config_dir: Path | None) -> Any:
    """A row's option of a group, or its value of a setting."""
    group, dot, name = key.partition(".")
    if dot:
        return getattr(getattr(row.config, group), name)
    given = [text.partition("=") for text in (*shared, *row.overrides)]
    return next((value for text, _, value in reversed(given) if text == key), default_option(key, config_dir))


def _check_baselines(rows: Sequence[Row], file: Path) -> None:
    """Each row's baseline is a row that is its own baseline, not a control arm, and has one control arm at most."""
    by_name = {row.name: row for row in rows}
    for row in rows:
        where = f"{file}: row '{row.name}': baseline '{row.baseline}'"
        if row.baseline not in by_name:
            raise LabError(f"{where} is not a row; {nearest(row.baseline, list(by_name))}")
        if by_name[row.baseline].baseline != row.baseline:
            raise LabError(f"{where} has another baseline itself; give it baseline: {row.baseline}")
    controls: dict[str, str] = {}
    for row in rows:
        if row.config.control and row.baseline == row.name:
            raise LabError(f"{file}: the baseline '{row.name}' cannot be the control arm: remove its control=true")
        if row.config.control and controls.setdefault(row.baseline, row.name) != row.name:
            raise LabError(
                f"{file}: only one row can be the control arm, but {controls[row.baseline]}, {row.name} "
                f"have control=true"
            )


def _row(name: Any, content: Any, baseline: str, shared: Sequence[str], file: Path, config_dir: Path | None) -> Row:
    if not isinstance(name, str) or not _ROW_NAME.fullmatch(name):
        said = shown(repr(name))
        raise LabError(
            f"{file}: row {said}: a row's name is at most 100 letters, digits and _ . + -, and starts with a letter"
        )
    where = f"{file}: row '{name}'"
    if not isinstance(content, dict):
        raise LabError(f"{where}: must be a mapping such as {{overrides: [residual=mhc]}}")
    known_keys(content, _ROW_KEYS, where)
    own = override_list(content.get("overrides"), f"{where}: overrides")
    gap = content.get("paper_loss_gap")
    if gap is not None and (isinstance(gap, bool) or not isinstance(gap, int | float) or not math.isfinite(gap)):
        raise LabError(f"{where}: paper_loss_gap must be a finite number, not {shown(repr(gap))}")
    for text in own:
        refuse_seed(text)
    try:
        config = compose(own, shared=shared, config_dir=config_dir)
    except LabError as error:
        raise LabError(f"{where}: {error}") from error
    own_baseline = str(content.get("baseline", baseline))
    return Row(name, own, own_baseline, config, None if gap is None else float(gap))


def _cell(row: Row, seed: int) -> Cell:
    config = row.with_seed(seed)
    fingerprint = corpus_fingerprint(config)
    return Cell(row.name, seed, config, run_id(config, fingerprint), fingerprint)
