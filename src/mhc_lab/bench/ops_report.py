"""The Markdown of `bench ops`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mhc_lab.bench.cases import CASES
from mhc_lab.bench.report import Json, bullets, describe, number, table
from mhc_lab.bench.targets import targets

Row = dict[str, Any]

OURSELVES = "ours"
TITLES = {
    "sinkhorn": "Sinkhorn",
    "coefficients": "Coefficients: projection, RMS, activations, Sinkhorn",
    "coefficients_unconstrained": "Coefficients for other constraints: their logits in place of H_res",
    "read": "Read: H_pre x",
    "write": "Write: H_res x + H_post^T F",
    "write_identity": "Write with H_res = I",
    "write_read": "One layer's connection: write, next coefficients and read (`write_read`)",
}
DIRECTIONS = {"forward": "forward", "backward": "backward", "both": "forward + backward"}
HEAD = """\
Microseconds are medians, with their quartiles in brackets, over rounds in which all implementations take turns; caches
are flushed before each. MB are the bytes that the operation has to move, each input once and each output once; GB/s is
that over the time, and "of copy" its share of the bandwidth of a plain tensor copy in the same rounds. The columns at
the right are other implementations' times over ours, above 1 where ours is faster; each has passed the gate: values and
all gradients against the equations in fp64."""


def markdown(content: Json) -> str:
    """The whole page."""
    rows: list[Row] = content["rows"]
    parts = ["# Operations", *(describe(run) for run in content["runs"]), HEAD]
    goals = targets(content)
    if goals:
        parts += ["## Figures to reach", goals]
    for case in CASES:
        found = [row for row in rows if row["case"] == case]
        if found:
            parts += [f"## {TITLES[case]}", _table(found)]
    parts.append(bullets("Not in the tables:", content["notes"]))
    return "\n\n".join(part for part in parts if part)


def _table(rows: Sequence[Row]) -> str:
    rivals = [name for name in dict.fromkeys(row["contender"] for row in rows) if name != OURSELVES]
    copy = rows[0]["copy_gb_per_s"]
    titles = ["", "C", "tokens", "µs", "", "MB", "GB/s", "of copy", *(f"× {name}" for name in rivals)]
    lines = []
    for own in sorted((row for row in rows if row["contender"] == OURSELVES), key=_order):
        beside = {row["contender"]: row for row in rows if _block(row) == _block(own)}
        lines.append(
            [
                DIRECTIONS[own["direction"]],
                str(own["dim"] or ""),
                str(own["tokens"]),
                number(own["us"]),
                f"[{number(own['us_low'])}–{number(own['us_high'])}]",
                number(own["bytes"] / 1e6),
                number(own["gb_per_s"]),
                f"{own['share_of_copy']:.0%}",
                *(number(beside[name]["times_ours"]) if name in beside else "" for name in rivals),
            ]
        )
    first = rows[0]
    unit = f"n = {first['streams']}, {first['dtype']} streams, t_max {first['t_max']}; copy {number(copy)} GB/s"
    return f"{unit}\n\n{table(titles, lines)}"


def _block(row: Row) -> tuple[Any, ...]:
    """What one comparison shares."""
    return tuple(row[name] for name in ("case", "direction", "dim", "tokens", "streams", "dtype", "t_max"))


def _order(row: Row) -> tuple[Any, ...]:
    return (list(DIRECTIONS).index(row["direction"]), row["dim"] or 0, row["tokens"])


def merged(before: Json | None, rows: list[Row], notes: list[str], run: Json) -> Json:
    """Earlier results with those of this run in place of theirs; every row says which run made it."""
    runs = [*before["runs"], run] if before else [run]
    made = [{**row, "run": len(runs) - 1} for row in rows]
    again = {_block(row) for row in made}
    kept = [row for row in before["rows"] if _block(row) not in again] if before else []
    told = before["notes"] if before else []
    return {"runs": runs, "rows": kept + made, "notes": list(dict.fromkeys([*told, *notes]))}
