"""The figures that this project set itself for one H100 (bf16 streams, n = 4), beside what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mhc_lab.bench.report import Json, table

Row = dict[str, Any]


@dataclass(frozen=True)
class Target:
    """A figure, what it shall be, and how it reads from the rows that bear on it."""

    what: str
    wanted: str
    best_known: str
    case: str
    direction: str
    contender: str
    chosen: Callable[[Row], bool] | None  # of the rows; None: all
    value: Callable[[Row], float]
    shown: Callable[[float], str]
    reached: Callable[[float], bool]
    worst: Callable[[Sequence[float]], float] = max


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _times(value: float) -> str:
    return f"{value:.2f} ×"


def _share(row: Row) -> float:
    return float(row["share_of_copy"])


def _ratio(row: Row) -> float:
    return float(row["times_ours"])


TARGETS = (
    Target(
        "`write` forward, C = 7168", "≥ 90 % of copy", "~2.9 TB/s (FlagGems)", "write", "forward", "ours",
        lambda row: row["dim"] == 7168, _share, _percent, lambda v: v >= 0.90, min,
    ),
    Target(
        "`write` backward", "≥ 85 % of copy", "75–77 % of roof (TransformerEngine, B200)", "write", "backward", "ours",
        None, _share, _percent, lambda v: v >= 0.85, min,
    ),
    Target(
        "`coefficients` forward", "≥ 80 % of copy", "", "coefficients", "forward", "ours",
        None, _share, _percent, lambda v: v >= 0.80, min,
    ),
    Target(
        "`coefficients` backward", "≥ 80 % of copy", "", "coefficients", "backward", "ours",
        None, _share, _percent, lambda v: v >= 0.80, min,
    ),
    Target(
        "`write_read` forward, C ≤ 2560", "≤ 1.25 × the time of moving 10C", "", "write_read", "forward", "ours",
        lambda row: row["dim"] <= 2560, lambda row: 1 / _share(row), _times, lambda v: v <= 1.25,
    ),
    Target(
        "`write_read` forward, C > 2560", "≤ 1.25 × the time of moving 14C", "", "write_read", "forward", "ours",
        lambda row: row["dim"] > 2560, lambda row: 1 / _share(row), _times, lambda v: v <= 1.25,
    ),
    Target(
        "a layer's connection forward, against Liger", "≥ 2 × faster", "1", "write_read", "forward", "liger",
        None, _ratio, _times, lambda v: v >= 2, min,
    ),
    Target(
        "a layer's connection backward, against Liger", "≥ 3 × faster", "1", "write_read", "backward", "liger",
        None, _ratio, _times, lambda v: v >= 3, min,
    ),
    Target(
        "Sinkhorn forward, 8192 matrices, t_max 20", "≤ 10 µs", "9.9 µs (TransformerEngine, B200)", "sinkhorn",
        "forward", "ours", lambda row: row["tokens"] == 8192 and row["t_max"] == 20, lambda row: float(row["us"]),
        lambda v: f"{v:.1f} µs", lambda v: v <= 10,
    ),
)  # fmt: skip


def targets(content: Json) -> str:
    """A table of the figures; nothing where the device is not the one that they are for."""
    if "H100" not in content["runs"][-1]["machine"]["device"]:
        return ""
    rows = [row for row in content["rows"] if row["dtype"] == "bfloat16" and row["streams"] == 4]
    lines = []
    for target in TARGETS:
        names = ("case", "direction", "contender")
        wanted = (target.case, target.direction, target.contender)
        values = [
            target.value(row)
            for row in rows
            if tuple(row[n] for n in names) == wanted and (target.chosen is None or target.chosen(row))
        ]
        measured = verdict = "not measured"
        if values:
            worst = target.worst(values)
            measured = target.shown(worst)
            if len(values) > 1:
                measured += f" (worst of {len(values)}, median {target.shown(sorted(values)[len(values) // 2])})"
            verdict = "yes" if target.reached(worst) else "no"
        lines.append([target.what, target.wanted, target.best_known, measured, verdict])
    return table(["figure", "target", "best known elsewhere", "measured", "reached"], lines)
