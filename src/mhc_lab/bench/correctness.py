"""Are the operations right on this device? Each against the equations in fp64, with every gradient; nothing is timed.

Small and odd shapes, the likeliest first, so that an end at any moment leaves the answers that count.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch

from mhc_lab.bench import report
from mhc_lab.bench.adapters import Absent
from mhc_lab.bench.cases import CASES, Case, Shape, pose
from mhc_lab.bench.gate import ALLOWED
from mhc_lab.bench.options import DTYPES, Options
from mhc_lab.bench.own import OURS
from mhc_lab.bench.run import OURSELVES, admit
from mhc_lab.ops import backends

Row = dict[str, Any]
Key = tuple[Any, ...]

STREAMS = (4, 2, 8, 1)
SIZES = ((257, 96), (5, 20), (1024, 1280))  # tokens, C: whole tiles and a part of one; less than a tile; as in models
HEAD = """\
Largest relative error of any output or gradient, as |found - truth| / |truth| of the whole tensor, truth being the
equations in fp64. "failed" is a kernel that could not be built or launched: models then run on its reference."""


def run_correctness(options: Options, say: Callable[[str], None]) -> list[Path]:
    """Judge each operation at each shape; correctness.json and .md, written after each; their paths.

    What is wrong or fails is a row like the others. `--append` goes on where an earlier run of this device ended.
    """
    torch.set_num_threads(options.used_threads)
    folder, run = report.folder_of(options), report.circumstances(options)
    before = report.earlier(folder / "correctness.json") if options.append else None
    content: report.Json = before or {"runs": [], "rows": []}
    content["runs"].append(run)
    known = {_key(row) for row in content["rows"]}
    paths: list[Path] = []
    for place, row in judge_all(options, known):
        row["run"] = len(content["runs"]) - 1
        content["rows"].append(row)
        say(f"[{place}] {_label(row)}: {_outcome(row)}")
        paths = report.write(folder, "correctness", content, markdown(content))
        if "CUDA error" in row.get("reason", ""):
            say("the device takes nothing more in this process: `--append` goes on after this shape")
            break
    return paths


def judge_all(options: Options, known: Collection[Key] = ()) -> Iterator[tuple[str, Row]]:
    """A row for each case and shape that is not known, and its place among all, as "3/91"."""
    problems = list(_problems(options))
    for place, (case, shape) in enumerate(problems, 1):
        named = _named(case, shape)
        if _key(named) not in known:
            yield f"{place}/{len(problems)}", {**named, **_judged(case, shape, options.place)}


def _problems(options: Options) -> Iterator[tuple[Case, Shape]]:
    """Every case in every dtype at every shape."""
    dtypes = [options.dtype] if options.dtype else ["bf16", "fp32", "fp16"] if options.on_gpu else ["fp32", "bf16"]
    streams = STREAMS[:1] if options.quick else STREAMS
    sizes = list(SIZES[1:2] if options.quick else SIZES)
    if options.dims or options.tokens:
        sizes = [(tokens, dim) for dim in options.dims or [96] for tokens in options.tokens or [257]]
    cases = [CASES[name] for name in options.cases or CASES]
    seen = set()
    for n in streams:
        for tokens, dim in sizes:
            for dtype in dtypes:
                for case in cases:
                    kept = DTYPES[dtype] if case.depends_on_dim else torch.float32  # logits have no streams' dtype
                    shape = Shape(tokens, dim, n, kept, options.t_max)
                    key = _key(_named(case, shape))
                    if key not in seen:
                        yield case, shape
                    seen.add(key)


def _named(case: Case, shape: Shape) -> Row:
    return {
        "case": case.name,
        "dtype": str(shape.dtype).removeprefix("torch."),
        "streams": shape.streams,
        "tokens": shape.tokens,
        "dim": shape.dim if case.depends_on_dim else None,
        "t_max": shape.t_max,
    }


def _key(row: Row) -> Key:
    return tuple(row[name] for name in ("case", "dtype", "streams", "tokens", "dim", "t_max"))


def _judged(case: Case, shape: Shape, device: torch.device) -> Row:
    start = time.perf_counter()
    backends.try_again()  # one shape that cannot be launched must not speak for the next
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            _, error = admit(OURSELVES, OURS[case.name], pose(case, shape, device))
            found: Row = {"outcome": "right", "error": error}
        except Absent as absent:
            reason = str(absent)
            found = {"outcome": "wrong" if reason.startswith("wrong") else "failed", "reason": reason}
        except torch.OutOfMemoryError:
            found = {"outcome": "failed", "reason": "out of memory"}
        except Exception as error:  # drawing on a device that an earlier kernel has broken
            found = {"outcome": "failed", "reason": f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"}
    kernels = [str(warning.message) for warning in said if "kernel" in str(warning.message)]
    if found["outcome"] == "failed" and kernels:
        found["reason"] = "; ".join(kernels)
    return {**found, "allowed": ALLOWED[shape.dtype], "seconds": time.perf_counter() - start}


def _label(row: Row) -> str:
    width = "" if row["dim"] is None else f" C={row['dim']}"
    return f"{row['case']} {row['dtype']} n={row['streams']}{width} tokens={row['tokens']}"


def _outcome(row: Row) -> str:
    if row["outcome"] == "right":
        return f"right, off by {row['error']:.2g} (allowed {row['allowed']:.2g})"
    return f"{row['outcome'].upper()}: {row['reason']}"


def markdown(content: report.Json) -> str:
    """A row for each operation and dtype, and each thing that is not right in full."""
    rows: list[Row] = content["rows"]
    titles = ["", "dtype", "right", "wrong", "failed", "largest error", "allowed"]
    lines = []
    for case in CASES:
        for dtype in dict.fromkeys(row["dtype"] for row in rows if row["case"] == case):
            mine = [row for row in rows if (row["case"], row["dtype"]) == (case, dtype)]
            count = {what: sum(row["outcome"] == what for row in mine) for what in ("right", "wrong", "failed")}
            errors = [row["error"] for row in mine if row["outcome"] == "right"]
            largest = f"{max(errors):.2g}" if errors else ""
            lines.append([case, dtype, *map(str, count.values()), largest, f"{mine[0]['allowed']:.2g}"])
    parts = ["# Correctness of the operations", *(report.describe(run) for run in content["runs"]), HEAD]
    parts.append(report.table(titles, lines))
    others = [f"{_label(row)}: {row['reason']}" for row in rows if row["outcome"] != "right"]
    parts.append(report.bullets("Not right:", others))
    return "\n\n".join(part for part in parts if part)
