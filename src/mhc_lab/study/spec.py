"""Grid files -> the cells of a study. Torch-free.

# mhc-lab ablate mygrid
title: What the table shows
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
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhc_lab.config.compose import compose, options, read_yaml
from mhc_lab.config.run_id import run_id
from mhc_lab.config.schema import MAX_SEED, RunConfig
from mhc_lab.data.corpus import corpus_fingerprint
from mhc_lab.errors import LabError, nearest

_GRID_KEYS = ("title", "baseline", "seeds", "overrides", "rows")
_ROW_KEYS = ("overrides", "baseline", "paper_loss_gap")
_ROW_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.+-]*")


@dataclass(frozen=True)
class Row:
    """A line of the table: its configuration (of seed 0), the row that its gap is measured from, and the gap that the
    paper gives for it, if any."""

    name: str
    overrides: tuple[str, ...]
    baseline: str
    config: RunConfig
    paper_loss_gap: float | None

    def with_seed(self, seed: int) -> RunConfig:
        return dataclasses.replace(self.config, seed=seed)


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


def load_grid(
    name_or_path: str,
    seeds: Sequence[int] | None = None,
    shared_overrides: Sequence[str] = (),
    config_dir: Path | None = None,
) -> Grid:
    """Resolve a grid of conf/grid, or a file of one's own.

    `seeds` replace those of the file; `shared_overrides` come after the file's, and a row's own win over both.
    Raises LabError for anything wrong in the file, the overrides or the seeds.
    """
    file = _find(name_or_path, config_dir)
    content = read_yaml(file)
    _known_keys(content, _GRID_KEYS, str(file))
    shared = (*_overrides(content.get("overrides"), f"{file}: overrides"), *shared_overrides)
    for override in shared:
        _refuse_seed(override)
    chosen_seeds = _seeds(list(seeds) if seeds is not None else content.get("seeds"), file)
    baseline = content.get("baseline")
    rows = _rows(content.get("rows"), str(baseline), shared, file, config_dir)
    names = [row.name for row in rows]
    if baseline in names and next(row for row in rows if row.name == baseline).baseline != baseline:
        raise LabError(f"{file}: baseline '{baseline}' names a baseline of its own: remove it from the row")
    if baseline not in names:
        hint = f"; {nearest(str(baseline), names)}" if baseline is not None else ", for example baseline: identity"
        raise LabError(f"{file}: baseline must name one of the rows{hint}")
    _check_baselines(rows, file)
    return Grid(
        name=file.stem,
        origin=name_or_path,
        title=str(content.get("title", file.stem)),
        baseline=str(baseline),
        rows=rows,
        seeds=chosen_seeds,
        overrides=shared,
        cells=tuple(_cell(row, seed) for row in rows for seed in chosen_seeds),
    )


def _find(name_or_path: str, config_dir: Path | None) -> Path:
    if "/" in name_or_path or name_or_path.endswith((".yaml", ".yml")):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise LabError(f"{name_or_path}: no such grid file")
        return path
    known = options("grid", config_dir)
    if name_or_path not in known:
        raise LabError(f"no grid '{name_or_path}'; {nearest(name_or_path, known)}")
    return known[name_or_path]


def _rows(content: Any, baseline: str, shared: Sequence[str], file: Path, config_dir: Path | None) -> tuple[Row, ...]:
    if not isinstance(content, dict) or not content:
        raise LabError(f"{file}: rows must be a mapping of at least one row, name: {{overrides: [...]}}")
    return tuple(_row(name, value, baseline, shared, file, config_dir) for name, value in content.items())


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
        raise LabError(f"{file}: row {name!r}: a row's name is letters, digits and _ . + -, and starts with a letter")
    where = f"{file}: row '{name}'"
    if not isinstance(content, dict):
        raise LabError(f"{where}: must be a mapping such as {{overrides: [residual=mhc]}}")
    _known_keys(content, _ROW_KEYS, where)
    own = _overrides(content.get("overrides"), f"{where}: overrides")
    gap = content.get("paper_loss_gap")
    if gap is not None and (isinstance(gap, bool) or not isinstance(gap, int | float)):
        raise LabError(f"{where}: paper_loss_gap must be a number, not {gap!r}")
    for override in own:
        _refuse_seed(override)
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


def _seeds(seeds: Any, file: Path) -> tuple[int, ...]:
    if not isinstance(seeds, list) or not seeds:
        raise LabError(f"{file}: seeds must be a list of at least one seed; give --seeds 0,1,2,3,4")
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MAX_SEED:
            raise LabError(f"seed {seed!r}: seeds are whole numbers from 0 to {MAX_SEED}")
    twice = next((seed for seed, count in Counter(seeds).items() if count > 1), None)
    if twice is not None:
        raise LabError(f"seed {twice} is given twice: each seed is one run a row")
    return tuple(seeds)


def _overrides(content: Any, where: str) -> tuple[str, ...]:
    if content is None:
        return ()
    if not isinstance(content, list) or not all(isinstance(override, str) for override in content):
        raise LabError(f"{where} must be a list of group=option or a.b=value")
    return tuple(content)


def _refuse_seed(override: str) -> None:
    if override.partition("=")[0] == "seed":
        raise LabError(f"{override}: the seeds of a grid are given with --seeds, or in its file as seeds: [...]")


def _known_keys(content: dict[str, Any], known: Sequence[str], where: str) -> None:
    for key in content:
        if key not in known:
            raise LabError(f"{where}: no key '{key}'; {nearest(str(key), known)}")
