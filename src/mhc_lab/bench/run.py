"""The benchmark of the operations: every case and shape, ours and the rivals in turn, behind the gate."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from mhc_lab.bench.adapters import Absent, Adapter, Prepared
from mhc_lab.bench.cases import CASES, Case, Problem, Shape, pose
from mhc_lab.bench.gate import judge
from mhc_lab.bench.options import Options
from mhc_lab.bench.own import EAGER, OURS, UNFUSED, compiled
from mhc_lab.bench.rivals import RIVALS
from mhc_lab.bench.timing import COPY, Clock, Copy, Spread, Timings, clock_for, take_turns
from mhc_lab.ops import backends

DIRECTIONS = ("forward", "backward", "both")
OURSELVES = "ours"
FEW_TOKENS = 256
Say = Callable[[str], None]
Row = dict[str, Any]


@dataclasses.dataclass
class Found:
    """Rows that were measured, and why others are not there."""

    rows: list[Row] = dataclasses.field(default_factory=list)
    notes: list[str] = dataclasses.field(default_factory=list)

    def note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)


def run_ops(options: Options, say: Say, keep: Callable[[Found], None]) -> Found:
    """Time all cases; `keep` is called with what there is after each block, so that an early end loses little."""
    device = options.place
    torch.set_num_threads(options.used_threads)
    torch.set_float32_matmul_precision("high")  # tf32 for all: Eq. 10 has it, and eager must not lose by its default
    clock, copy, found = clock_for(device), Copy(device), Found()
    contenders = available(options, found)
    rounds = options.rounds or (3 if options.quick else 20 if options.on_gpu else 15)
    blocks = list(_blocks(options))
    for place, (case, shape) in enumerate(blocks, 1):
        rows = _block(case, shape, contenders, device, clock, copy, rounds, found)
        found.rows += rows
        mine = [row for row in rows if row["contender"] == OURSELVES]
        told = ", ".join(f"{row['direction']} {row['us']:.4g} us" for row in mine) or "not measured"
        say(f"[{place}/{len(blocks)}] {case.name} C={shape.dim} tokens={shape.tokens}: {told}")
        keep(found)
    return found


def available(options: Options, found: Found) -> dict[str, Mapping[str, Adapter]]:
    """Adapters by contender and case; a rival that cannot be had is noted."""
    contenders: dict[str, Mapping[str, Adapter]] = {OURSELVES: OURS, "ours_unfused": UNFUSED}
    for name in options.contenders:
        try:
            if name == "eager":
                contenders[name] = EAGER
            elif name == "compile":
                contenders[name] = {case.name: compiled(case) for case in CASES.values()}
            else:
                contenders[name] = RIVALS[name]()
        except Absent as absent:
            found.note(f"{name}: {absent}")
    if options.quick and "compile" not in options.contenders:
        found.note("compile: left out by --quick")
    return contenders


def _blocks(options: Options) -> Iterator[tuple[Case, Shape]]:
    names = options.cases or list(CASES)
    for name in names:
        seen = set()
        for shape in options.shapes():
            if CASES[name].depends_on_dim or shape.tokens not in seen:
                yield CASES[name], shape
            seen.add(shape.tokens)


def _block(
    case: Case,
    shape: Shape,
    contenders: Mapping[str, Mapping[str, Adapter]],
    device: torch.device,
    clock: Clock,
    copy: Copy,
    rounds: int,
    found: Found,
) -> list[Row]:
    """One case at one shape: gate every contender, then time those that pass."""
    label = f"{case.name} C={shape.dim} tokens={shape.tokens}"
    problem = pose(case, shape, device)
    torch.compiler.reset()  # past a handful of shapes of one function it would run eagerly
    ready: dict[str, tuple[Prepared, float]] = {}
    for name, adapters in contenders.items():
        if case.name not in adapters:
            continue
        try:
            ready[name] = admit(name, adapters[case.name], problem)
        except Absent as reason:
            found.note(f"{name}: {label}: {reason}")
    rows: list[Row] = []
    if OURSELVES not in ready:
        return rows
    for direction in DIRECTIONS:
        works = {
            name: getattr(prepared, direction)
            for name, (prepared, _) in ready.items()
            if direction == "forward" or prepared.adapter.backward
        }
        with _memory(found, f"{label} {direction}"):
            timings = take_turns(clock, {**works, COPY: copy}, rounds)
            for name in works:
                rows.append(_row(case, shape, direction, name, ready[name][1], timings, copy))
    return rows


def admit(name: str, adapter: Adapter, problem: Problem) -> tuple[Prepared, float]:
    """A contender ready to be timed, and the largest error that its gate found. Raises Absent with the reason."""
    case, shape = problem.case, problem.shape
    refusal = adapter.refuses(shape)
    if refusal:
        raise Absent(refusal)
    try:
        if case.iterates and name != "compile":
            # Which side a Sinkhorn ends with shows after two iterations, and hardly after twenty.
            few = dataclasses.replace(shape, tokens=min(FEW_TOKENS, shape.tokens), t_max=2)
            _pass(Prepared(adapter, pose(case, few, problem.device)))
        prepared = Prepared(adapter, problem)
        error = _pass(prepared)
        if adapter.backward:
            prepared.keep()
    except torch.OutOfMemoryError as full:
        raise Absent("out of memory") from full
    except Absent:
        raise
    except Exception as error:  # other people's code may fail in any way; the table says how
        raise Absent(f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}") from error
    fallen = sorted(f"{backend} {operation}" for operation, backend in backends.failed())
    if name.startswith(OURSELVES) and fallen:  # its operations then run on their reference, which is not to be measured
        raise Absent(f"kernels that failed to launch: {', '.join(fallen)}")
    return prepared, error


def _pass(prepared: Prepared) -> float:
    verdict = judge(prepared)
    if not verdict.green:
        raise Absent(f"wrong: {verdict}")
    return verdict.error


@contextmanager
def _memory(found: Found, label: str) -> Iterator[None]:
    """Out of memory costs this block of rows, and is said."""
    try:
        yield
    except torch.OutOfMemoryError:
        found.note(f"{label}: out of memory with all contenders in place: leave some out with --rivals")


def _row(case: Case, shape: Shape, direction: str, name: str, error: float, timings: Timings, copy: Copy) -> Row:
    own = timings.spread(name)
    copied = copy.bytes_moved / timings.spread(COPY).median  # bytes a microsecond
    moved = case.bytes_moved(direction, shape)
    ratio: Spread = timings.ratio(name, OURSELVES)
    return {
        "case": case.name,
        "direction": direction,
        "contender": name,
        "tokens": shape.tokens,
        "dim": shape.dim if case.depends_on_dim else None,
        "streams": shape.streams,
        "dtype": str(shape.dtype).removeprefix("torch."),
        "t_max": shape.t_max,
        "us": own.median,
        "us_low": own.low,
        "us_high": own.high,
        "bytes": moved,
        "gb_per_s": moved / own.median / 1e3,
        "copy_gb_per_s": copied / 1e3,
        "share_of_copy": moved / own.median / copied,
        "times_ours": ratio.median,
        "times_ours_low": ratio.low,
        "times_ours_high": ratio.high,
        "gate_error": error,
    }
