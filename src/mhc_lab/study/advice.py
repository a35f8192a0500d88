"""What a grid's plan says to a reader before the hours are spent: seeds too few, rows that are one, unequal lengths."""

from __future__ import annotations

from mhc_lab.config.schema import RunConfig
from mhc_lab.report.stats import MIN_SEEDS
from mhc_lab.study.spec import Grid
from mhc_lab.units import listed


def advice(grid: Grid) -> list[str]:
    """Lines, none of which forbids anything."""
    lines = []
    if len(grid.seeds) < MIN_SEEDS:
        seeds = ", ".join(map(str, grid.seeds))
        lines.append(
            f"{'the only seed is' if len(grid.seeds) == 1 else 'the seeds are'} {seeds}: intervals and tests take "
            f"{MIN_SEEDS}; --seeds 0-4 gives five"
        )
    for same in grid.alike():
        if len(same) > 1:
            lines.append(f"rows {listed(same)} come to the same settings: they share their runs")
    for row in grid.rows:
        base = grid.row(row.baseline).config
        for name, own, other in _unlike(row.config, base):
            lines.append(f"row {row.name} has {name}={own}, its baseline {row.baseline} {other}: not the same task")
    return lines


def _unlike(config: RunConfig, base: RunConfig) -> list[tuple[str, object, object]]:
    """Settings that make two runs incomparable, whatever their connections: length of training, data, context."""
    names = ("trainer.max_steps", "data.batch_size", "data.source", "data.files", "model.sequence_length")
    found = []
    for name in names:
        group, _, key = name.partition(".")
        own, other = (getattr(getattr(one, group), key) for one in (config, base))
        if own != other:
            found.append((name, own, other))
    return found
